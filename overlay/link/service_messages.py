"""The messages between the agent and the forwarder about virtual services, as frozen values.

Addresses are packed, of 4 or 16 bytes.  The agent chooses the numbers of services and servers.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from overlay.wire.bounds import ROWS, Address, FlowKey, Items, Name, Ports, UInt8, UInt16, between

# Ours
MOST_VIEWS = 4  # of other directors that see servers of one service differently
VIRTUAL = -1  # in routes, instead of a peer number: a virtual address that this node balances
NO_ANSWER = 0  # the serial of a Pin without an answer


@dataclass(frozen=True, slots=True)
class SetService:
    """Add the service, or change it; it keeps its servers and flows.

    *ports* are ranges, the last of each included; empty stands for all.  *persistence* is in seconds; *idle* are the
    seconds after which flows are forgotten: of TCP, of TCP that is ending, and of UDP.  *limits* are new flows per
    second, flows, and flows that are remembered although the scheduler is a function of the flow.  *directors* are the
    other peers that balance the service, which are told about its flows.
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

    *key* identifies it in schedulers, *weight* is the effective weight, *takes* a value of ``health.Flows``; *apart* is
    the value for an IP version for which it takes less.
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
    """Make these the servers of the service, in the order of the peers file; *sorry* has one row or none.

    With *is_sorry* the sorry server takes over.  *elsewhere* are the effective weights of all these servers, the sorry
    server last, as seen by other directors that see them differently; each list begins with the IP version that it is
    for, 0 for both.
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
    """A permission of *peers*, empty for all: packets to *address* from anywhere or, with *is_source*, from it.

    *protocols* and *ports* are those of the service at that address.  With *returns*, answers from here go back through
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
    """What peers may send for services from now on, in place of all earlier permissions."""

    rows: list[PermitRow]


@dataclass(frozen=True, slots=True)
class Pin:
    """Send flows of health checks to given servers, whatever their state; ``Pinned`` follows, also if there are no
    flows.

    With the serial NO_ANSWER nothing follows.  *flows* are keys with the numbers of a service and its server; *over*
    are earlier ones, which are balanced like all others again.
    """

    serial: int
    flows: Annotated[list[tuple[FlowKey, int, int]], Items(0, ROWS)]
    over: list[FlowKey]


@dataclass(frozen=True, slots=True)
class AskServices:
    """Send the counters of all services; *serial* is returned with them."""

    serial: int


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """The flows of a service that are requested; None, and empty *states*, mean all.

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
    """Send at most *most* flows of a service that match *wanted*, from the position *at* in its table on.

    The answer may be shorter, because a table may be large: it has the position to continue at.
    """

    serial: int
    service: int
    at: int
    most: int
    wanted: FlowFilter


@dataclass(frozen=True, slots=True)
class Pinned:
    """The flows of the ``Pin`` with *serial* go to their servers, except *refused*, given by position.

    A flow is refused if its server is unknown, or too many flows are pinned already.
    """

    serial: int
    refused: Annotated[list[int], Items(0, ROWS)]


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """Counters of a server of a service; *server* is the number in its row."""

    service: int
    server: int
    active: int
    inactive: int
    connections: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ServiceTotals:
    """Counters of a service since it was added, including servers that are gone."""

    service: int
    connections: int
    packets: int
    bytes: int
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class ServiceCounters:
    """Counters of some servers and services at the time *at*; with *is_last* they are complete.

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
    """One flow.  *state* is a value of ``states.State``; *idle* are seconds since its last packet, *left* the seconds
    until it is forgotten.

    *server* is None if the server is gone.
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

    *rest* is then the position in the table to continue at, None at the end of the table.
    """

    serial: int
    rows: Annotated[list[FlowRow], Items(0, ROWS)]
    is_last: bool
    rest: int | None = None
