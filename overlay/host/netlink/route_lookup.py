"""Where the kernel would send one packet, as ``ip route get`` reports it: according to routes, rules, marks and the
reverse path check.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import Kernel, refusal
from overlay.host.netlink.link import DeviceMtus
from overlay.host.netlink.rtnetlink import (
    NUMBER,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_TYPE_OFFSET,
    RTA_DST,
    RTA_GATEWAY,
    RTA_IIF,
    RTA_MARK,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_SRC,
    RTA_TABLE,
    RTA_VIA,
    RTAX_MTU,
    RTM_F_FIB_MATCH,
    RTM_F_LOOKUP_TABLE,
    RTM_GETROUTE,
    RTN_LOCAL,
    build_attribute,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.linux import NLM_F_ACK

if TYPE_CHECKING:
    from overlay.host.plan import IPAddress, IPNetwork


class RouteOutcome(enum.Enum):
    """What the kernel does with the packet."""

    OUT = "out"  # it leaves by an interface
    HERE = "here"  # it is for this host
    NOWHERE = "nowhere"  # no route
    UNREACHABLE = "unreachable"  # by a route; for an incoming packet also: this host does not forward
    PROHIBITED = "prohibited"  # by a route or a rule
    DISCARDED = "discarded"  # by a blackhole route; for an incoming packet also: its source is invalid
    REVERSE_PATH = "reverse path"  # its source is routed to another interface than the one it came from


# Specification: fib_props in net/ipv4/fib_semantics.c, ip_route_input_slow() in net/ipv4/route.c
REFUSALS = {
    errno.ENETUNREACH: RouteOutcome.NOWHERE,
    errno.EHOSTUNREACH: RouteOutcome.UNREACHABLE,
    errno.EACCES: RouteOutcome.PROHIBITED,
    errno.EINVAL: RouteOutcome.DISCARDED,
    errno.EXDEV: RouteOutcome.REVERSE_PATH,
}


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """A packet.  An incoming one needs its *source*, and *enters* is its interface; an outgoing one may have None."""

    destination: IPAddress
    source: IPAddress | None = None
    enters: str | None = None
    fwmark: int | None = None


@dataclass(frozen=True, slots=True)
class RouteResult:
    """What happens to a packet; None is what the kernel did not report.

    *network* and *table* are those of the route, *gateway* is None on the link itself.  *source* is the address that an
    outgoing packet gets.  *mtu* is that of route and interface, in bytes.
    """

    outcome: RouteOutcome
    interface: str | None = None
    network: IPNetwork | None = None
    table: int | None = None
    metric: int | None = None
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    mtu: int | None = None


class RouteLookup:
    """Asks the kernel.  Must be closed."""

    def __init__(self) -> None:
        """Raises HostError if the kernel cannot be asked at all."""
        try:
            self._kernel = Kernel()
        except OSError as error:
            raise refusal("the routing tables of this host cannot be accessed", error) from error
        self._mtus = DeviceMtus(self._kernel)

    def close(self) -> None:
        """Close the socket to the kernel."""
        self._kernel.close()

    def of(self, question: RouteQuery) -> RouteResult:
        """Return what happens to the packet in *question*.  Raises HostError."""
        try:
            route = self._ask(question, 0)
        except OSError as error:
            if error.errno in REFUSALS:
                return RouteResult(REFUSALS[error.errno])
            raise refusal(f"the route to {question.destination} could not be looked up", error) from error
        kind, attributes = route[ROUTE_TYPE_OFFSET], dict(read_attributes(route, ROUTE_ATTRIBUTES_OFFSET))
        index = read_number(attributes.get(RTA_OIF))
        interface = None
        with contextlib.suppress(OSError):
            interface = socket.if_indextoname(index) if index else None
        metrics = dict(read_attributes(attributes.get(RTA_METRICS, b""), 0))
        mtus = (read_number(metrics.get(RTAX_MTU)), self._mtus.of(index) if index else None)
        network, table, metric = self._table(question)
        via = attributes.get(RTA_VIA)
        gateway = attributes.get(RTA_GATEWAY) or (via[2:] if via else None)
        source = attributes.get(RTA_PREFSRC)
        return RouteResult(
            RouteOutcome.HERE if kind == RTN_LOCAL else RouteOutcome.OUT,  # also multicast and broadcast
            interface,
            network,
            table,
            metric,
            None if gateway is None else ip_address(gateway),
            None if source is None else ip_address(source),
            min((each for each in mtus if each), default=None),
        )

    def _table(self, question: RouteQuery) -> tuple[IPNetwork | None, int | None, int | None]:
        """Return the prefix, table and metric of the route itself; None for what the kernel does not report."""
        flags = RTM_F_FIB_MATCH | (RTM_F_LOOKUP_TABLE if question.destination.version == 4 else 0)
        try:
            route = self._ask(question, flags)
        except OSError:
            return None, None, None
        attributes = dict(read_attributes(route, ROUTE_ATTRIBUTES_OFFSET))
        size, network_of = (4, IPv4Network) if question.destination.version == 4 else (16, IPv6Network)
        network = network_of((attributes.get(RTA_DST, bytes(size)), route[ROUTE_LENGTH_OFFSET]))
        metric = read_number(attributes.get(RTA_PRIORITY)) if RTA_PRIORITY in attributes else None
        return network, read_number(attributes.get(RTA_TABLE)) or None, metric

    def _ask(self, question: RouteQuery, flags: int) -> bytes:
        destination, source = question.destination, question.source
        bits = len(destination.packed) * 8
        parts = [
            ROUTE.pack(
                family_of(destination.version), bits, bits if source is not None else 0, 0, 0, 0, 0, 0, flags
            ),
            build_attribute(RTA_DST, destination.packed),
        ]
        if source is not None:
            parts.append(build_attribute(RTA_SRC, source.packed))
        if question.enters is not None:
            parts.append(build_attribute(RTA_IIF, NUMBER.pack(socket.if_nametoindex(question.enters))))
        if question.fwmark:
            parts.append(build_attribute(RTA_MARK, NUMBER.pack(question.fwmark)))
        (route,) = self._kernel.ask(build_message(RTM_GETROUTE, NLM_F_ACK, *parts))
        return route


def ask_way(question: RouteQuery) -> RouteResult:
    """Return what happens to the packet in *question*.  Raises HostError."""
    with contextlib.closing(RouteLookup()) as ways:
        return ways.of(question)
