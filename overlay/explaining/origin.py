"""Where a packet starts on this host, according to its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.explaining.explanation import Origin
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery

if TYPE_CHECKING:
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow
    from overlay.host.netlink.route_lookup import RouteResult


@dataclass(frozen=True, slots=True)
class Came:
    """The origin: the *interface* and the peer, None if no peer has the source; *way* is the route of the answers."""

    origin: Origin
    interface: str | None = None
    sender: str | None = None
    way: RouteResult | None = None


def origin_of(facts: Facts, flow: Flow) -> Came:
    """Return where a packet of *flow* comes from.

    The owner of the source in the peers file decides first: packets of a peer arrive by the tunnel, whatever this
    host's routes say about them.
    """
    source = flow.source
    if source is None:
        return Came(Origin.HERE)
    way = facts.way(RouteQuery(source))
    if way.outcome is RouteOutcome.HERE:
        return Came(Origin.HERE, way=way)
    sender = _sender(facts, flow)
    if sender is not None:
        return Came(Origin.TUNNEL, facts.interface, sender, way)
    held = facts.held(source)
    if way.outcome is RouteOutcome.OUT and way.interface != facts.interface:
        is_stray = (
            held is None and _is_ours(facts, flow) and way.network is not None and not way.network.prefixlen
        )
        # A source that only the default route leads to could be anywhere; if the destination is ours, the tunnel is
        # assumed.
        if not is_stray:
            return Came(Origin.INTERFACE, way.interface, way=way)
    if held is not None and held[1] == facts.own:
        return Came(Origin.UNKNOWN, way=way)
    return Came(Origin.TUNNEL, facts.interface, None, way)


def _sender(facts: Facts, flow: Flow) -> str | None:
    """Return the other peer that has the source, or may send from it unencrypted; None if there is none."""
    assert flow.source is not None
    held = facts.held(flow.source)
    for name, tunnel in facts.node.tunnels.items():
        if tunnel.encapsulation.is_encrypted or not tunnel.peer.sources:
            continue
        length = max((each.prefixlen for each in tunnel.peer.sources if flow.source in each), default=-1)
        if length >= 0 and length >= (-1 if held is None else held[0].prefixlen):
            return name
    return None if held is None or held[1] == facts.own else held[1]


def _is_ours(facts: Facts, flow: Flow) -> bool:
    """Return whether the destination is one of this node's addresses or behind it."""
    held = facts.held(flow.destination)
    return held is not None and held[1] == facts.own
