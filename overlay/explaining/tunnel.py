"""The tunnel to a peer, and what the peer does with a packet, as far as that is known here."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from overlay.explaining.explanation import KERNEL, NODE, PEER, Path
from overlay.explaining.permits import why_permitted
from overlay.explaining.size import fit
from overlay.host.netlink.route_lookup import RouteOutcome, RouteQuery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts
    from overlay.host.plan import IPAddress
    from overlay.roster import Remote
    from overlay.tunnels import Tunnel

# Ours
ABSENT = {"unreachable", "unconfirmed"}  # states of peers that have been given up
WAITING = {
    "idle": "a handshake comes first, because there is no session at the moment",
    "connecting": "a handshake is in progress, and the packet waits for its end",
    "silent": "it has not answered for 15 seconds, so the packet may be lost",
}


def to_peer(
    facts: Facts,
    remote: Remote,
    source: IPAddress | None,
    found: Explanation,
    *,
    is_permitted: str | None = None,
) -> None:
    """Explain the tunnel to *remote* and its far end.

    *is_permitted* says why the peer accepts the packet although its source is not this node's.
    """
    name, tunnel = remote.peer.name, facts.node.tunnels[remote.peer.name]
    found.peer, found.path = name, Path.TUNNEL
    row = facts.row(remote)
    if row["endpoint"] is None:
        why = f"its endpoint {remote.resolve_error}" if remote.resolve_error else "it has to connect first"
        found.refuse(NODE, f"{name} has no endpoint at the moment: {why}", "no_endpoint")
        return
    _say_tunnel(facts, remote, tunnel, row["endpoint"], found)
    if not found.goes:
        return
    if row["state"] in ABSENT:
        text = f"{name} is {row['state']}: unless it answers now, the packet waits for a handshake and is then dropped"
        found.refuse(NODE, text, "given_up")
        return
    if row["state"] in WAITING:
        found.doubt(f"{name} is {row['state']}: {WAITING[row['state']]}")
    _say_size(facts, tunnel, row, found)
    if found.size is not None:
        fit(facts, row, found.size, found)
    if not found.goes:
        return
    _reach_far_side(facts, remote, source, found, is_permitted)


def _reach_far_side(
    facts: Facts, remote: Remote, source: IPAddress | None, found: Explanation, is_permitted: str | None
) -> None:
    name = remote.peer.name
    if facts.node.is_tap:
        found.say("far side", f"{name} accepts the frame; sources of packets in frames are not checked")
    elif facts.node.is_bare:
        found.doubt(f"the sources that {name} accepts are not known here: they are its AllowedIPs")
    elif is_permitted is not None:
        found.say("far side", f"{name} accepts the source {source}: {is_permitted}")
    elif source is None:
        found.doubt("the source is not known: this host has no address to send from")
    else:
        why = _why_accepted(facts, remote, source)
        if why is None:
            held = facts.held(source)
            whose = f"no peer has it{facts.nearest(source)}"
            if held is not None:
                whose = f"{held[0]} is {held[1]}'s"
            text = (
                f"{name} accepts only packets from addresses that are this node's in the peers file, and {source} is "
                f"not: {whose}"
            )
            found.refuse(PEER, text, "source")
            return
        found.say("far side", f"{name} accepts the source {source}, {why}")
    found.doubt(f"the packet filters and routes of {name} are not known here")


def _why_accepted(facts: Facts, remote: Remote, source: IPAddress) -> str | None:
    """Return why *remote* accepts packets from *source* sent by this node; None if it does not."""
    held = facts.held(source)
    if held is not None and held[1] == facts.own:
        return f"which is this node's by {held[0]}"
    if not remote.encapsulation.is_encrypted:
        for prefix in facts.node.own.sources:
            if source in prefix and (held is None or prefix.prefixlen >= held[0].prefixlen):
                return f"which this node may send from by {prefix} in its `sources`"
    return why_permitted(facts, source)


def _say_tunnel(facts: Facts, remote: Remote, tunnel: Tunnel, endpoint: str, found: Explanation) -> None:
    """Say where the tunnel leads on the underlay; refuse the packet if its datagram cannot leave."""
    host = endpoint.rpartition(":")[0].strip("[]") if tunnel.encapsulation.has_ports else endpoint.strip("[]")
    encapsulation = tunnel.encapsulation
    found.tunnel = {
        "encapsulation": encapsulation.name,
        "is_encrypted": encapsulation.is_encrypted,
        "endpoint": endpoint,
        "interface": None,
        "source": None,
        "gateway": None,
    }
    if "%" in host:
        found.say("tunnel", f"{encapsulation.name} to {endpoint}")
        return
    outer = facts.way(RouteQuery(ip_address(host), fwmark=facts.plan.fwmark))
    found.underlay_route = outer
    if outer.outcome not in {RouteOutcome.OUT, RouteOutcome.HERE}:
        found.refuse(KERNEL, f"this host has no route to the endpoint {endpoint}", "send_refused")
        return
    if outer.interface == facts.interface:
        held = facts.held(ip_address(host))
        if held is not None and held[1] == remote.peer.name:
            text = f"the route to the endpoint {endpoint} leads into the tunnel that would carry it"
            found.refuse(NODE, text, "loop")
            return
        found.doubt(f"the endpoint {endpoint} is itself reached through the overlay")
    found.tunnel |= {
        "interface": outer.interface,
        "source": None if outer.source is None else str(outer.source),
        "gateway": None if outer.gateway is None else str(outer.gateway),
    }
    sealed = "" if encapsulation.is_encrypted else ", unencrypted"
    sent_from = "" if outer.source is None else f" from {outer.source}"
    via = "" if outer.gateway is None else f" via {outer.gateway}"
    found.say("tunnel", f"{encapsulation.name} to {endpoint}{sealed}, by {outer.interface}{via}{sent_from}")


def _say_size(facts: Facts, tunnel: Tunnel, row: Mapping[str, Any], found: Explanation) -> None:
    whole, known = facts.plan.mtu, row["path_mtu"]
    found.mtu = whole if known is None else min(known, whole)
    outer = None if found.underlay_route is None else found.underlay_route.mtu
    by = "the MTU of the interface" if found.mtu == whole else f"the path MTU to {found.peer}"
    room = "" if outer is None else f"; the underlay has an MTU of {outer}"
    found.say(
        "size",
        f"packets of up to {found.mtu} bytes: {by}; {_overhead(tunnel, row)} are reserved for the tunnel{room}",
    )
    if row["kernel_path_mtu"] is not None:
        found.doubt(f"the kernel was told of a path MTU of {row['kernel_path_mtu']} to the endpoint")


def _overhead(tunnel: Tunnel, row: Mapping[str, Any]) -> int:
    """Return how many bytes the tunnel adds to a packet on its way to the peer's current address."""
    return tunnel.overheads[6 if "[" in row["endpoint"] or row["endpoint"].count(":") > 1 else 4]
