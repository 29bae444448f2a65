"""The kernel's own tunnels: where they are there, they take the same packets as our raw sockets, beside them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from overlay.encap.encapsulation import Encapsulation

# Specification: the names of the kernel's modules, each with the device that appears with it, by IP protocol
TUNNELS = {
    4: (("ipip", "tunl0"), ("ip6_tunnel", "ip6tnl0")),
    41: (("sit", "sit0"), ("ip6_tunnel", "ip6tnl0")),
    47: (("ip_gre", "gre0"), ("gre", "gre0"), ("ip6_gre", "ip6gre0")),
}
MODULES = Path("/sys/module")


def notes(encapsulations: Iterable[Encapsulation], loaded: Collection[str] | None = None) -> list[str]:
    """Return a sentence for each of the kernel's tunnels that is in the way of raw sockets of *encapsulations*.

    *loaded* are the names of modules and devices that there are; by default those of this host.
    """
    found = _loaded() if loaded is None else loaded
    wanted = {
        pair: each.name
        for each in encapsulations
        if not each.has_ports
        for protocol in each.protocols.values()
        for pair in TUNNELS.get(protocol, ())
    }
    return [
        f"the kernel's own tunnel {module} is loaded: beside {name} it may take the same packets a second time, or answer "
        f"them with ICMP errors; run `modprobe -r {module}`, or take {device} down and drop what it answers"
        for (module, device), name in wanted.items()
        if module in found or device in found
    ]


def _loaded() -> set[str]:
    names = {name for _, name in socket.if_nameindex()}
    if MODULES.is_dir():
        names.update(path.name for path in MODULES.iterdir())
    return names
