"""The path of a packet that comes out of the tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.explaining import services, stations
from overlay.explaining.explanation import KERNEL, NODE, Path, describe_way
from overlay.explaining.filters import refused_by_filter
from overlay.explaining.leaving import into_tunnel
from overlay.host.firewall.rules import Packet
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery

if TYPE_CHECKING:
    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow
    from overlay.explaining.origin import Came
    from overlay.host.netlink.route_lookup import RouteResult


def arrive(facts: Facts, flow: Flow, came: Came, found: Explanation) -> None:
    """Explain a packet that a peer sends here."""
    assert flow.source is not None
    found.reverse_route = came.way
    if not _is_accepted(facts, flow, came, found):
        return
    way = facts.way(RouteQuery(flow.destination, flow.source, facts.interface))
    found.route = way
    forwards = facts.forwards(flow.destination.version, facts.interface)
    is_here = facts.way(RouteQuery(flow.destination)).outcome is RouteOutcome.HERE
    if not is_here and stations.is_delivered(facts, flow, way, found):
        pass  # a bridge takes the frame there, whether this host forwards or not
    elif not is_here and not forwards:
        found.refuse(
            KERNEL,
            f"this host does not forward IPv{flow.destination.version} packets from {facts.interface}",
        )
    elif way.outcome is RouteOutcome.HERE:
        _deliver(facts, flow, found)
    elif way.outcome is RouteOutcome.OUT:
        _forward(facts, flow, way, found)
    elif way.outcome in {RouteOutcome.DISCARDED, RouteOutcome.REVERSE_PATH}:
        assert came.way is not None
        text = (
            f"a rule or a route of this host discards packets from {flow.source} that come in by {facts.interface}: "
            f"see `ip rule` and `ip route show match {flow.destination} table all`"
        )
        if came.way.outcome is RouteOutcome.OUT and came.way.interface != facts.interface:
            text = (
                f"the reverse path check of {facts.interface} drops it: answers to {flow.source} would leave by "
                f"{came.way.interface}, by the route {describe_way(came.way)}"
            )
        found.refuse(KERNEL, text)
    else:
        found.refuse(KERNEL, f"this host has no route for {flow.destination} ({way.outcome.value})")
    if found.goes:
        _look_back(facts, flow, came, found)


def _is_accepted(facts: Facts, flow: Flow, came: Came, found: Explanation) -> bool:
    """Say which peers may send from the source; refuse the packet if none may."""
    assert flow.source is not None
    found.sender = came.sender
    if came.sender is not None:
        held = facts.held(flow.source)
        by = f"by {held[0]}" if held is not None and held[1] == came.sender else "by its `sources`"
        others = (
            "sources of packets in frames are not checked"
            if facts.node.is_tap
            else "no other peer may send from there"
        )
        found.say("from", f"{flow.source} is {came.sender}'s, {by}: {others}")
        remote = facts.roster.by_name[came.sender]
        row = facts.row(remote)
        if row["state"] not in {"up", "unencrypted"}:
            found.doubt(f"{came.sender} is {row['state']}")
        return True
    if facts.node.is_tap:
        found.say("from", "sources of packets in frames are not checked")
        return True
    service = services.admitting(facts, flow)
    if service is not None:
        found.say("from", f"a director of {service.name} may send it for a client")
        return True
    found.refuse(
        NODE,
        f"whichever peer sends it, this node drops it: no peer has {flow.source}{facts.nearest(flow.source)}",
        "source",
    )
    return False


def _deliver(facts: Facts, flow: Flow, found: Explanation) -> None:
    assert flow.source is not None
    found.path = Path.HERE
    found.say("here", f"{flow.destination} is an address of this host")
    packet = Packet(flow.source, flow.destination, facts.interface, None, flow.protocol, flow.port)
    refused_by_filter(facts, packet, ("prerouting", "input"), found)


def _forward(facts: Facts, flow: Flow, way: RouteResult, found: Explanation) -> None:
    assert flow.source is not None
    found.say("route", describe_way(way))
    packet = Packet(flow.source, flow.destination, facts.interface, way.interface, flow.protocol, flow.port)
    if refused_by_filter(facts, packet, ("prerouting", "forward"), found):
        return
    if way.interface == facts.interface:
        found.say("hub", "the packet goes into the tunnel again")
        into_tunnel(facts, flow, flow.source, found)
        return
    found.path = Path.OUTSIDE
    held = facts.held(flow.destination)
    if held is not None and held[1] == facts.own:
        found.prefix = str(held[0])
        found.say("behind", f"this host forwards it by {way.interface}: {held[0]} is this node's own")
    else:
        found.say("outside", f"this host forwards it out of the overlay by {way.interface}")


def _look_back(facts: Facts, flow: Flow, came: Came, found: Explanation) -> None:
    """Say which path the answers take."""
    back = came.way
    assert back is not None
    if back.outcome is RouteOutcome.OUT and back.interface == facts.interface:
        found.say("answers", f"go back by {describe_way(back)}")
    elif back.outcome is RouteOutcome.OUT:
        found.doubt(
            f"answers to {flow.source} leave by {back.interface} and not through the tunnel, by the route "
            f"{describe_way(back)}"
        )
    else:
        found.doubt(f"answers to {flow.source} have no route")
