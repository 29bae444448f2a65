"""The path of a packet that this host sends, or forwards from another interface, into the tunnel or past it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.explaining import services, stations
from overlay.explaining.explanation import KERNEL, NODE, Origin, Path, describe_way
from overlay.explaining.facts import peer_or_node
from overlay.explaining.filters import place, refused_by_filter
from overlay.explaining.tunnel import to_peer
from overlay.host.firewall.rules import Packet, Verdict
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery

if TYPE_CHECKING:
    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow
    from overlay.explaining.origin import Came
    from overlay.host.netlink.route_lookup import RouteResult
    from overlay.host.plan import IPAddress, IPNetwork


def leave(facts: Facts, flow: Flow, came: Came, found: Explanation) -> None:
    """Explain a packet of this host, or from behind it."""
    if came.origin is Origin.UNKNOWN:
        found.refuse(
            KERNEL,
            f"{flow.source} is in a subnet of this node, but this host has no route to it, "
            "so nothing can come from there",
        )
        return
    enters = came.interface if came.origin is Origin.INTERFACE else None
    if enters is not None:
        assert came.way is not None
        found.say("from", f"{flow.source} is behind {enters}, by the route {describe_way(came.way)}")
        if not facts.forwards(flow.destination.version, enters) and _leaves(facts, flow):
            found.refuse(
                KERNEL, f"this host does not forward IPv{flow.destination.version} packets from {enters}"
            )
            return
    way = facts.way(RouteQuery(flow.destination, flow.source, enters))
    found.route = way
    source = flow.source or way.source
    found.source = source
    if way.outcome is RouteOutcome.OUT and way.interface == facts.interface:
        _say_route(way, source, found)
        if not _is_filtered(facts, flow, source, enters, found):
            into_tunnel(facts, flow, _translated(facts, flow, source, enters, found), found)
    elif way.outcome is RouteOutcome.OUT:
        _go_outside(facts, flow, source, enters, way, found)
    elif way.outcome is RouteOutcome.HERE:
        found.path = Path.HERE
        found.say(
            "here", f"{flow.destination} is an address of this host, and does not go through the tunnel"
        )
    else:
        _refuse_by_kernel(facts, flow, enters, way, found)


def into_tunnel(facts: Facts, flow: Flow, source: IPAddress | None, found: Explanation) -> None:
    """Explain what the forwarder does with a packet that the kernel hands it."""
    if services.is_virtual(facts, flow):
        services.through(facts, flow, source, found)
        return
    if facts.node.is_tap:
        stations.through(facts, flow, source, found)
        return
    held = facts.held(flow.destination)
    if held is None:
        service = services.answering(facts, source)
        if service is None and flow.destination.is_multicast:
            text = f"{flow.destination} is a multicast group, and a tun does not carry multicast"
            found.refuse(NODE, text, "tun_multicast")
        elif service is None:
            text = f"no peer has {flow.destination}{facts.nearest(flow.destination)}"
            found.refuse(NODE, text, "no_peer")
        else:
            services.give_back(facts, service, source, found)
        return
    prefix, name = held
    found.prefix = str(prefix)
    if name == facts.own:
        text = f"{prefix} is this node's own, but the route leads into the tunnel: a local route is missing"
        found.refuse(NODE, text, "own_subnet")
        return
    found.say("peer", f"{name}, which has {prefix}")
    to_peer(facts, facts.roster.by_name[name], source, found)


def _say_route(way: RouteResult, source: IPAddress | None, found: Explanation) -> None:
    found.say("route", f"{describe_way(way)}{'' if source is None else f', source {source}'}")


def _leaves(facts: Facts, flow: Flow) -> bool:
    """Return whether an incoming packet is for another host."""
    return facts.way(RouteQuery(flow.destination)).outcome is not RouteOutcome.HERE


def _go_outside(
    facts: Facts,
    flow: Flow,
    source: IPAddress | None,
    enters: str | None,
    way: RouteResult,
    found: Explanation,
) -> None:
    """Explain a packet that leaves by another interface."""
    found.path = Path.OUTSIDE
    sends = "sends" if enters is None else "forwards"
    held, destination = facts.held(flow.destination), flow.destination
    _say_route(way, source, found)
    if facts.node.is_tap and way.interface == facts.bridge:
        if not _is_filtered(facts, flow, source, enters, found, way.interface):
            stations.through(facts, flow, source, found)
        return
    past = f"this host {sends} it by {way.interface}, not through the overlay"
    if held is None:
        found.say("outside", f"{past}: no prefix of a peer holds {destination}{facts.nearest(destination)}")
        name = facts.roster.names_by_host().get(str(destination))
        if name is not None:
            found.say("endpoint", f"{destination} is the endpoint of {name}; its tunnel takes this path")
        _is_filtered(facts, flow, source, enters, found, way.interface)
        return
    prefix, name = held
    found.prefix = str(prefix)
    if name == facts.own:
        found.say("outside", f"{past}: {prefix} is this node's own, and behind {way.interface}")
        _is_filtered(facts, flow, source, enters, found, way.interface)
        return
    found.peer = name
    if prefix in facts.plan.on_link:
        found.say("outside", f"{past}: this host is on {prefix} itself, which is {name}'s too")
        return
    if _is_meant(facts, way, prefix):
        part = f"{way.network} is part of {prefix}, which is {name}'s, and the longer prefix is preferred"
        found.say("outside", f"{past}: {part}")
        _is_filtered(facts, flow, source, enters, found, way.interface)
        return
    found.refuse(
        KERNEL,
        f"{prefix} is {name}'s, but {past}, and unencrypted: "
        f"the route {describe_way(way)} comes before that into the tunnel",
    )
    found.path = Path.OUTSIDE


def _is_meant(facts: Facts, way: RouteResult, prefix: IPNetwork) -> bool:
    """Return whether a network of this host is part of a peer's larger *prefix* outside the overlay's prefixes."""
    if way.network is None or way.network.prefixlen <= prefix.prefixlen:
        return False
    return not any(
        prefix.prefixlen >= each.prefixlen and prefix.network_address in each
        for each in facts.node.table.network.prefixes
    )


def _refuse_by_kernel(
    facts: Facts, flow: Flow, enters: str | None, way: RouteResult, found: Explanation
) -> None:
    """Explain why the kernel sends a packet nowhere."""
    destination, held = flow.destination, facts.held(flow.destination)
    if way.outcome is RouteOutcome.REVERSE_PATH:
        found.refuse(KERNEL, f"the reverse path check of {enters} drops packets from {flow.source}")
    elif way.outcome is RouteOutcome.DISCARDED and enters is not None:
        found.refuse(
            KERNEL,
            f"a rule, a route or the reverse path check of this host discards packets from {flow.source} that come in "
            f"by {enters}: see `ip rule` and `ip route show match {destination} table all`",
        )
    elif way.outcome is RouteOutcome.NOWHERE:
        whose = f"although {held[0]} is {peer_or_node(held[1], facts.own)}'s" if held else ""
        nearest = whose or f"and no prefix of a peer holds it{facts.nearest(destination)}"
        found.refuse(KERNEL, f"this host has no route to {destination}, {nearest}")
    else:
        guard = ""
        if held is not None and held[1] != facts.own:
            guard = (
                f": {held[0]} is {held[1]}'s, and the agent keeps such a route behind its own, so that nothing leaves "
                f"unencrypted; see whether {facts.interface} is up"
            )
        found.refuse(KERNEL, f"a route of this host says that {destination} is {way.outcome.value}{guard}")


def _is_filtered(
    facts: Facts,
    flow: Flow,
    source: IPAddress | None,
    enters: str | None,
    found: Explanation,
    leaves: str | None = None,
) -> bool:
    """Refuse the packet if packet filters of this host certainly drop it; return whether they do."""
    if facts.firewall is None or source is None:
        return False
    packet = _packet(flow, source, enters, leaves or facts.interface)
    hooks = ("output", "postrouting") if enters is None else ("prerouting", "forward", "postrouting")
    return refused_by_filter(facts, packet, hooks, found)


def _translated(
    facts: Facts, flow: Flow, source: IPAddress | None, enters: str | None, found: Explanation
) -> IPAddress | None:
    """Return the source of the packet in the tunnel: packet filters may replace it with an address of this host."""
    if facts.firewall is None or source is None:
        return source
    packet = _packet(flow, source, enters, facts.interface)
    decision = facts.firewall.decides(packet, "postrouting", Verdict.MASQUERADE, "nat")
    if decision is None:
        return source
    own = facts.way(RouteQuery(flow.destination)).source
    found.say("masquerade", f"the packet gets the source {own} ({place(decision)})")
    return own


def _packet(flow: Flow, source: IPAddress, enters: str | None, leaves: str | None) -> Packet:
    return Packet(source, flow.destination, enters, leaves, flow.protocol, flow.port)
