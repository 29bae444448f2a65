"""What the agent and the forwarder tell each other about virtual services, as frozen values.

Addresses are packed, of 4 or 16 bytes.  Services and their servers have numbers that the agent gives.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from overlay.wire.bounds import ROWS, Address, FlowKey, Items, Name, Ports, UInt8, UInt16, between

# Ours
MOST_VIEWS = 4  # of other directors that see servers of one service otherwise
VIRTUAL = -1  # in the place of a peer number in the routes: a virtual address that this node balances
NO_ANSWER = 0  # the serial of a Pin that nobody waits for


@dataclass(frozen=True, slots=True)
class SetService:
    """Have the service, or have it otherwise; it keeps its servers and flows.

    *ports* are ranges, the last of each included; none are all.  *persistence* is in seconds, *idle* are the seconds
    after which flows are forgotten: of TCP, of TCP that is ending, and of UDP.  *limits* are new flows in a second,
    flows, and flows that are remembered in addition to a scheduler which is a function of the flow.  *directors* are
    the peers that balance it too, and are told of its flows.
    """

    service: int
    name: Name
    addresses: list[Address]
    protocols: list[UInt8]
    ports: Ports
    scheduler: Name
    persistence: float
    prefix4: Annotated[int, between(0, 32)]
    prefix6: Annotated[int, between(0, 128)]
    one_packet: bool
    idle: Annotated[list[float], Items(3, 3)]
    limits: Annotated[list[int], Items(3, 3)]
    directors: list[int] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server of a service, behind *peer*, which is OWN for this node.

    *key* is its identity in schedulers, *weight* the effective one, *takes* a value of ``health.Flows``; *apart* is
    that of an IP version by which it takes less.
    """

    server: int
    key: Name
    peer: int
    weight: UInt16
    takes: UInt8
    dscp: UInt8 = 0
    upper: int = 0
    lower: int = 0
    apart: list[tuple[int, int]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SetServers:
    """Have these servers in the service, in the order of the peers file; *sorry* has one row or none.

    With *is_sorry* it is the turn of the sorry server.  *elsewhere* are the effective weights, of all these servers and
    the sorry server last, as other directors see them where that is not as here; before them the IP version that they
    are for, 0 for both.
    """

    service: int
    rows: list[ServerRow]
    sorry: Annotated[list[ServerRow], Items(0, 1)] = dataclasses.field(default_factory=list)
    is_sorry: bool = False
    elsewhere: Annotated[list[tuple[int, list[UInt16]]], Items(0, MOST_VIEWS)] = dataclasses.field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Forget the service and its flows."""

    service: int


@dataclass(frozen=True, slots=True)
class PermitRow:
    """What *peers* may send, none being all: packets to *address* from anywhere or, with *is_source*, from it.

    *protocols* and *ports* are those of the service at that address.  With *returns* answers from here go back through
    the peer that a client's packets came from.
    """

    address: Address
    is_source: bool
    peers: list[int]
    protocols: list[UInt8]
    ports: Ports
    returns: bool = False


@dataclass(frozen=True, slots=True)
class SetPermits:
    """What peers may send for the sake of services from now on, in place of what they might before."""

    rows: list[PermitRow]


@dataclass(frozen=True, slots=True)
class Pin:
    """Lead flows of health checks to servers whatever their state, each to one; ``Pinned`` follows, also for none.

    With the serial NO_ANSWER nothing follows.  *flows* are keys with the numbers of a service and its server; *over*
    are those of before that are led as all others again.
    """

    serial: int
    flows: Annotated[list[tuple[FlowKey, int, int]], Items(0, ROWS)]
    over: list[FlowKey]


@dataclass(frozen=True, slots=True)
class AskServices:
    """Tell the counters of all services; *serial* comes back with them."""

    serial: int


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which flows of a service are asked for; None, and no *states*, ask for all.

    *client* is a packed address of which the first *prefix* bits count, *port* is that of the service, *states* are
    values of ``states.State``.
    """

    client: Address | None = None
    prefix: UInt8 = 0
    server: int | None = None
    protocol: UInt8 | None = None
    port: UInt16 | None = None
    states: list[UInt8] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AskFlows:
    """Tell at most *most* flows of a service that are *wanted*, from the place *at* in its table on.

    The answer may end before, for a table may be large: it has the place to go on at.
    """

    serial: int
    service: int
    at: int
    most: int
    wanted: FlowFilter


@dataclass(frozen=True, slots=True)
class Pinned:
    """The flows of the ``Pin`` with *serial* are led to their servers; but not *refused*, by their places in it.

    Their servers are unknown, or too many flows are led already.
    """

    serial: int
    refused: Annotated[list[int], Items(0, ROWS)]


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """What was counted for a server of a service; *server* is that of its row."""

    service: int
    server: int
    active: int
    inactive: int
    connections: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ServiceTotals:
    """What was counted for a service since it is there, for servers that are gone too."""

    service: int
    connections: int
    packets: int
    bytes: int
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class ServiceCounters:
    """Counters of some servers and services at the time *at*, and with *is_last* all have been told.

    *at* is in seconds of CLOCK_BOOTTIME, *drops* are those of no service.
    """

    serial: int
    at: float
    servers: Annotated[list[ServerCounters], Items(0, ROWS)]
    services: Annotated[list[ServiceTotals], Items(0, ROWS)]
    drops: dict[str, int]
    is_last: bool


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One flow.  *state* is a value of ``states.State``; *idle* and *left* are seconds since its last packet
    and to live.

    *server* is None for one that is gone.
    """

    protocol: UInt8
    client: Address
    client_port: UInt16
    address: Address
    port: UInt16
    state: UInt8
    server: int | None
    idle: float
    left: float


@dataclass(frozen=True, slots=True)
class Flows:
    """Some of the flows that were asked for; with *is_last* this answer is complete.

    *rest* is then the place in the table to go on at, None where all of it was looked at.
    """

    serial: int
    rows: Annotated[list[FlowRow], Items(0, ROWS)]
    is_last: bool
    rest: int | None = None
