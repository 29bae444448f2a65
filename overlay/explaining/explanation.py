"""An explanation as a value: the steps on a packet's path, and where it ends."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overlay.reasons import REASONS

if TYPE_CHECKING:
    from overlay.host.netlink.route_lookup import RouteResult
    from overlay.host.plan import IPAddress

# Who refuses a packet
KERNEL, FILTER, NODE, PEER = "kernel", "packet filter", "node", "peer"

# Specification: linux/rtnetlink.h
TABLES = {253: "default", 254: "main", 255: "local"}


class Origin(enum.Enum):
    """Where a packet starts on this host."""

    HERE = "here"  # a program of this host sends it
    INTERFACE = "interface"  # it arrives by an interface other than the overlay's
    TUNNEL = "tunnel"  # a peer sends it
    UNKNOWN = "unknown"


class Path(enum.Enum):
    """Where the packet goes next."""

    TUNNEL = "tunnel"
    OUTSIDE = "outside"  # by another interface
    HERE = "here"  # it is delivered to this host
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens to the packet, or is known about its path: a word, and a sentence that continues it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who refuses the packet, and the drop reason under which it is counted, at this node or at the peer.

    *reason* is None if another program refuses it.
    """

    by: str
    reason: str | None


@dataclass(slots=True)
class Explanation:
    """What happens to a packet.

    *doubts* are what may keep it from arriving even though nothing refuses it.  *size* is that of the packet in bytes,
    None if it was not given; *fit* is what follows from it in a tunnel.  *station* is what the bridge of a tap knows
    about the destination station.  A frame has an Ethernet address as its destination.
    """

    destination: IPAddress | str
    source: IPAddress | None
    size: int | None = None
    origin: Origin = Origin.HERE
    enters: str | None = None
    path: Path = Path.NOWHERE
    refusal: Refusal | None = None
    steps: list[Step] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    route: RouteResult | None = None
    reverse_route: RouteResult | None = None
    underlay_route: RouteResult | None = None
    sender: str | None = None
    peer: str | None = None
    prefix: str | None = None
    tunnel: dict[str, Any] | None = None
    service: dict[str, Any] | None = None
    station: dict[str, Any] | None = None
    mtu: int | None = None
    fit: dict[str, Any] | None = None

    @property
    def goes(self) -> bool:
        """Whether nothing refuses it."""
        return self.refusal is None

    def say(self, name: str, text: str) -> None:
        """Add a step."""
        self.steps.append(Step(name, text))

    def doubt(self, text: str) -> None:
        """Add something that may keep the packet from arriving."""
        self.doubts.append(text)

    def refuse(self, by: str, text: str, reason: str | None = None) -> None:
        """End the path here."""
        assert reason is None or reason in REASONS, reason
        self.refusal = Refusal(by, reason)
        if by != PEER:
            self.path = Path.NOWHERE
        self.say("dropped", text)
        if reason is not None:
            where = f"{self.peer}" if by == PEER else "this node"
            self.say("counted", f"as `{reason}` by {where}: the packet {REASONS[reason].sentence}")


def describe_way(way: RouteResult) -> str:
    """Return the route of a packet in words: ``10.7.0.0/16 via 192.0.2.9 by eth0, table main``."""
    network = "" if way.network is None else f"{_network(way)} "
    via = "" if way.gateway is None else f"via {way.gateway} "
    table = "" if way.table is None else f", table {TABLES.get(way.table, way.table)}"
    return f"{network}{via}by {way.interface}{table}"


def _network(way: RouteResult) -> str:
    assert way.network is not None
    return "default" if way.network.prefixlen == 0 else str(way.network)
