"""A network of Ethernet frames: which peer a station is behind, according to the bridge of the tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.explaining.explanation import NODE, Explanation, Origin, Path
from overlay.explaining.tunnel import to_peer
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery
from peers.mac import format_mac

if TYPE_CHECKING:
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow
    from overlay.host.netlink.route_lookup import RouteResult
    from overlay.host.plan import IPAddress


def explain_frame(facts: Facts, mac: bytes) -> Explanation:
    """Return what would happen to a frame to the Ethernet address *mac* that arrives at the tap."""
    text = format_mac(mac)
    found, station = Explanation(text, None), facts.station
    if station is None:
        found.path = Path.TUNNEL
        found.doubt("the process that carries packets did not say where the station is")
        return found
    found.station = station.describe()
    if station.peer is not None:
        found.say("station", f"{text} is behind {station.peer}, {station.since()}")
        to_peer(facts, facts.roster.by_name[station.peer], None, found)
    elif station.is_here:
        found.path = Path.HERE
        found.say(
            "station",
            f"{text} is on this side of {facts.interface}, {station.since()}: no tunnel leads there",
        )
    else:
        found.path = Path.TUNNEL
        found.say("station", f"no frame has come from {text} lately: a frame to it is copied to every peer")
        found.doubt("if no such station exists, nobody answers")
    return found


def through(facts: Facts, flow: Flow, source: IPAddress | None, found: Explanation) -> None:
    """Explain a packet that the kernel puts into a frame for the tap, or for the bridge that the tap is a port of."""
    gateway = None if found.route is None else found.route.gateway
    target = flow.destination if gateway is None else gateway
    whose = str(target) if gateway is None else f"the router {target}"
    held = facts.held(flow.destination) if gateway is None else None
    station = facts.station
    if station is not None:
        found.station = station.describe()
    if held is not None:
        found.prefix = str(held[0])
    mac = None if station is None or station.mac is None else format_mac(station.mac)
    if flow.destination.is_multicast:
        found.path = Path.TUNNEL
        found.say("station", f"{flow.destination} is a multicast group: its frames are copied to every peer")
    elif station is not None and station.peer is not None:
        found.say("station", f"{whose} has {mac}, which is behind {station.peer}, {station.since()}")
        to_peer(facts, facts.roster.by_name[station.peer], source, found)
    elif station is not None and station.is_here:
        text = f"{whose} has {mac}, which is on this side of {facts.interface}, {station.since()}"
        if found.route is not None and found.route.interface == facts.bridge:
            found.path = Path.OUTSIDE
            found.say("station", f"{text}: no tunnel leads there")
        else:
            found.refuse(NODE, f"{text}, so its frame does not enter a tunnel", "own_side")
    else:
        _ask_for(facts, flow, whose, mac, found)
        if held is not None and held[1] != facts.own:
            found.say("peer", f"{held[1]}, which has {held[0]}, is expected to answer")
            to_peer(facts, facts.roster.by_name[held[1]], source, found)


def is_delivered(facts: Facts, flow: Flow, way: RouteResult, found: Explanation) -> bool:
    """Explain a packet that a peer sends to a station on this side of the tap; return whether it is one."""
    station = facts.station
    if station is None or station.mac is None or not station.is_here:
        return False
    if way.gateway is not None or way.interface not in {facts.interface, facts.bridge}:
        return False
    found.path, found.station = Path.OUTSIDE, station.describe()
    where = f"on this side of {facts.interface}, {station.since()}"
    found.say(
        "station", f"{flow.destination} has {format_mac(station.mac)}, which is {where}: its frame goes there"
    )
    return True


def is_bridged(facts: Facts, flow: Flow, found: Explanation) -> bool:
    """Explain a packet of a station at a port of the tap's bridge to another of the same LAN; return whether it is one.

    The bridge forwards its frame, and neither routes nor forwarding of this host matter.  Whether the two are in one
    LAN is taken from the route of this host to the source, if that leads to the bridge.
    """
    sender, station = facts.source_station, facts.station
    if facts.bridge is None or flow.source is None or sender is None or station is None:
        return False
    if not sender.is_here or sender.mac is None or station.mac in {None, sender.mac}:
        return False
    by_tap = {facts.interface, facts.bridge}
    there, back = facts.way(RouteQuery(flow.destination)), facts.way(RouteQuery(flow.source))
    if RouteOutcome.HERE in {there.outcome, back.outcome}:
        return False
    if there.interface in by_tap and there.gateway is not None:
        return False
    if back.interface in by_tap and back.network is not None and flow.destination not in back.network:
        return False
    assert station.mac is not None
    found.origin, found.enters, found.station = Origin.INTERFACE, facts.bridge, station.describe()
    whose = f"{flow.destination} has {format_mac(station.mac)}"
    found.say("from", f"{flow.source} is the station {format_mac(sender.mac)} at a port of {facts.bridge}")
    if station.peer is not None:
        found.say("station", f"{whose}, which is behind {station.peer}, {station.since()}")
        to_peer(facts, facts.roster.by_name[station.peer], flow.source, found)
    elif station.is_here:
        found.path = Path.OUTSIDE
        text = f"{whose}, which is on this side of {facts.interface}, {station.since()}"
        found.say("station", f"{text}: {facts.bridge} forwards the frame between its ports")
    else:
        _ask_for(facts, flow, str(flow.destination), format_mac(station.mac), found)
    found.doubt(f"packet filters for frames that {facts.bridge} forwards are not known here")
    return True


def beside(facts: Facts, flow: Flow, found: Explanation) -> None:
    """Say where the station of an address is that this host does not reach by the tap; other stations may."""
    station = facts.station
    if station is None or station.mac is None or not (station.is_here or station.peer is not None):
        return
    found.station = station.describe()
    where = f"behind {station.peer}" if station.peer is not None else f"on this side of {facts.interface}"
    found.say(
        "station",
        f"{flow.destination} has {format_mac(station.mac)}, which is {where}, {station.since()}: other stations "
        "reach it by frames, whatever the routes of this host are",
    )


def _ask_for(facts: Facts, flow: Flow, whose: str, mac: str | None, found: Explanation) -> None:
    """Explain a packet whose station is not known."""
    found.path = Path.TUNNEL
    how = "ARP" if flow.destination.version == 4 else "neighbour discovery"
    where = "at every peer" if facts.bridge is None else f"at every peer and every port of {facts.bridge}"
    if mac is None:
        text = f"no station is known to have it: {whose} is asked for by {how}, {where}"
    else:
        text = (
            f"{whose} has {mac}, from which no frame has come lately: a frame to it is copied to every peer"
        )
    found.say("station", text)
    found.doubt("if no such station exists, nobody answers")
