"""A UDP port that this node needs but another program has: which program that is, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.errors import format_keys
from peers.stores import FILE
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from overlay.config import Node
    from overlay.host.holders import Holder


def describe(node: Node, encapsulation: str, port: int, holder: Holder | None) -> str:
    """Return a sentence on *port*, which *encapsulation* needs on *node* but *holder*, None if unknown, has."""
    return f"UDP port {port} is taken by {_whom(holder)}, or {remedy(node, encapsulation)}"


def describe_own(node: Node, encapsulation: str, port: int, other: str) -> str:
    """Return a sentence on *port*, which this agent itself uses for the encapsulation *other*."""
    return f"UDP port {port} is in use by this agent for {other}: {remedy(node, encapsulation)}, or restart the agent"


def remedy(node: Node, encapsulation: str) -> str:
    """Return what gives *node* another port for *encapsulation*, as the end of a sentence."""
    network, own = node.table.network, node.own
    if node.is_bare or (node.merged is not None and node.merged.amendments.listen_port is not None):
        return "choose another with listen-port of `wg set`, or ListenPort in the file of wg-quick"
    everywhere = node.location.port_remedy(encapsulation)
    has_section = node.location.store == FILE or own.listen_port is not None
    if not has_section or encapsulation != own_encapsulation(network, own):
        return f"write {everywhere}"
    section = f"[{format_keys(('peers', own.name))}]"
    also = ", and that port into its endpoint" if own.endpoint is not None else ""
    if own.listen_port is not None:
        return f"write another listen_port under {section}{also}{node.location.editor()}"
    return f"write a listen_port of its own under {section}{also}, or {everywhere}"


def _whom(holder: Holder | None) -> str:
    if holder is None:
        return "another program: stop that (`ss -lunp` shows it)"
    if holder.interface is not None:
        return (
            f"the agent of {holder.interface} (process {holder.process}): stop that with "
            f"`overlay down --interface {holder.interface}`"
        )
    if holder.process is not None:
        return f"{holder.program or 'a program'} (process {holder.process} of user {holder.user_name}): stop that"
    return (
        f"a socket of user {holder.user_name} whose process this agent cannot see: stop that (`ss -lunp`, run by root, "
        "shows it unless the kernel itself has the port, as for a WireGuard or VXLAN interface)"
    )
