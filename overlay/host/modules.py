"""The kernel's own tunnels.  If they are loaded, they get the same packets as our raw sockets.

One that has no tunnel to the sender answers with an ICMP error (`overlay.host.tunnel_errors`).  The first device of
each takes the packets that no other device takes; if it is up, the packet arrives in this host a second time.
"""

from __future__ import annotations

import fcntl
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.linux import IFF_UP, INTERFACE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from overlay.encap.encapsulation import Encapsulation

# Specification: linux/sockios.h, linux/if.h
SIOCGIFFLAGS = 0x8913
MODULES = Path("/sys/module")


@dataclass(frozen=True, slots=True)
class KernelTunnel:
    """A kernel module, the device that appears with it, if any, and the IP protocols it is asked about."""

    module: str
    device: str
    protocols: frozenset[int]


# Specification: net/ipv4 and net/ipv6 of Linux.  Two of them only pass packets on to the others, or answer.
TUNNELS = (
    KernelTunnel("ipip", "tunl0", frozenset({4})),
    KernelTunnel("sit", "sit0", frozenset({4, 41})),
    KernelTunnel("ip6_tunnel", "ip6tnl0", frozenset({4, 41})),
    KernelTunnel("tunnel4", "", frozenset({4, 41})),
    KernelTunnel("tunnel6", "", frozenset({4, 41})),
    KernelTunnel("ip_gre", "gre0", frozenset({47})),
    KernelTunnel("ip6_gre", "ip6gre0", frozenset({47})),
)


def beside(
    encapsulations: Iterable[Encapsulation], names: Collection[str] | None = None
) -> dict[KernelTunnel, frozenset[int]]:
    """Return the kernel's tunnels that exist, each with those of its protocols that *encapsulations* use.

    *names* are the modules and devices; by default those of this host.  Raises OSError if these cannot be determined,
    as without a free descriptor.
    """
    used = {protocol for each in encapsulations if not each.has_ports for protocol in each.protocols.values()}
    if not used:
        return {}
    found = _names() if names is None else names
    return {
        tunnel: tunnel.protocols & used
        for tunnel in TUNNELS
        if tunnel.protocols & used and (tunnel.module in found or tunnel.device in found)
    }


def is_up(device: str) -> bool:
    """Return whether the interface *device* exists and is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFFLAGS, INTERFACE_FLAGS.pack(device.encode(), 0))
        except OSError:
            return False  # there is none
    _, flags = INTERFACE_FLAGS.unpack(answer)
    return bool(flags & IFF_UP)


def _names() -> set[str]:
    names = {name for _, name in socket.if_nameindex()}
    if MODULES.is_dir():
        names.update(path.name for path in MODULES.iterdir())
    return names
