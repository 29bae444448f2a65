"""The facts that explain a packet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.config import Node
    from overlay.explaining.choosing import Choice
    from overlay.explaining.station import StationSighting
    from overlay.host.firewall.rules import Firewall
    from overlay.host.netlink.route_lookup import RouteQuery, RouteResult
    from overlay.host.plan import HostPlan, IPAddress, IPNetwork
    from overlay.roster import Remote, Roster
    from peers.service import Service


# Ours
NEAR = 12  # bits in which a prefix must agree with an address to be worth mentioning


@dataclass(frozen=True, slots=True)
class Facts:
    """What the agent knows about its node and its peers, and the kernel about its routes.

    *way* asks the kernel, *row* returns the status of a peer, *forwards* whether this host forwards packets of an IP
    version that arrive by an interface.  *chosen* are the servers for flows of services that this node balances, by
    name.  *firewall* is None if the packet filters could not be read.  *station* is that of the address in question, or
    of the router to it, None with a tun; *bridge* is the bridge that the tap is a port of, and *source_station* the
    station of the source there, None if it was not looked for.
    """

    node: Node
    roster: Roster
    interface: str
    plan: HostPlan
    way: Callable[[RouteQuery], RouteResult]
    row: Callable[[Remote], Mapping[str, Any]]
    forwards: Callable[[int, str], bool]
    active_director: Callable[[Service], str]
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    firewall: Firewall | None = None
    station: StationSighting | None = None
    bridge: str | None = None
    source_station: StationSighting | None = None

    @property
    def own(self) -> str:
        """The name of this node."""
        return self.node.own.name

    def held(self, address: IPAddress) -> tuple[IPNetwork, str] | None:
        """Return the prefix of the peers file that decides for *address*, and the name of the peer that has it."""
        return self.node.table.owners.match(address)

    def nearest(self, address: IPAddress) -> str:
        """Return a clause, to follow another, on the prefix that agrees with *address* in the most bits; empty if fewer
        than NEAR agree.
        """
        number, width = int(address), address.max_prefixlen
        found: tuple[int, IPNetwork, str] | None = None
        for prefix, name in self.node.table.routes:
            if prefix.version != address.version:
                continue
            differs = number ^ int(prefix.network_address)
            same = min(width - differs.bit_length(), prefix.prefixlen)
            if found is None or same > found[0]:
                found = same, prefix, name
        if found is None or found[0] < NEAR:
            return ""
        return f"; the nearest is {found[1]} of {found[2] if found[2] != self.own else 'this node'}"


def peer_or_node(name: str, own: str) -> str:
    """Return *name* for a sentence, "this node" if it is *own*."""
    return "this node" if name == own else name
