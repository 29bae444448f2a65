"""The kernel's own tunnels, which get the same packets as ours; see `overlay.host.modules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host import modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from overlay.diagnosis.facts import Facts
    from overlay.encap.encapsulation import Encapsulation
    from overlay.host.modules import KernelTunnel


def check_kernel_tunnels(
    facts: Facts,
    beside: Callable[[list[Encapsulation]], Mapping[KernelTunnel, frozenset[int]]] = modules.beside,
    is_up: Callable[[str], bool] = modules.is_up,
) -> Iterator[Finding]:
    """Yield each of the kernel's tunnels that answers packets of an encapsulation in use, or delivers them a second
    time.
    """
    for tunnel, protocols in beside(facts.node.encapsulations).items():
        name = next(each.name for each in facts.node.encapsulations if protocols & {*each.protocols.values()})
        if not protocols <= facts.errors_prevented:
            yield Finding(
                "kernel_tunnel_answers",
                f"the kernel's module {tunnel.module} answers packets of {name} with ICMP errors, which end "
                "connections, and they could not be dropped by nftables",
                f"run `modprobe -r {tunnel.module}`, or start the agent with CAP_NET_ADMIN on a kernel with nf_tables",
            )
        if tunnel.device and is_up(tunnel.device):
            yield Finding(
                "kernel_tunnel_up",
                f"the kernel's own tunnel {tunnel.device} is up and takes packets of {name} a second time",
                f"run `ip link set {tunnel.device} down`",
            )
