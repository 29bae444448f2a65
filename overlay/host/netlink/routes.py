"""Our routes: those into the tun, the unreachable twin of each, and routes that skip one of our tables."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from overlay.errors import HostError
from overlay.host.netlink.kernel import GONE, dump_routes, refusal, versions
from overlay.host.netlink.rtnetlink import (
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NUMBER,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RT_TABLE_UNSPEC,
    RTA_DST,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    build_attribute,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import ANSWERS, PROTOCOL, is_table_of
from overlay.linux import ATTRIBUTE, NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.netlink.rtnetlink import Version
    from overlay.host.plan import HostPlan, IPAddress, IPNetwork

# Ours
# Worse than what the kernel, DHCP or an administrator usually set: their route to the same prefix continues to
# win.
METRIC = 5182
UNKNOWN_SOURCE = IPv4Address(0)  # of routes that have several, or have lost theirs: equal to no wanted source
EVERYWHERE: dict[int, IPv4Network | IPv6Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
DESTINATION_OFFSET = ROUTE_ATTRIBUTES_OFFSET + ATTRIBUTE.size  # if it is the first attribute

Destination: TypeAlias = bytes
"""The network of a route: its length in bits, in one byte, and its address.  Sets of 100,000 networks are compared with
each change, which takes ten times as long if they are objects of Python.
"""


@dataclass(frozen=True, slots=True)
class RouteKind:
    """The properties of routes that differ only in their destination.

    With *is_past*, the lookup continues after the table, as if it had no entry for the destination.
    """

    version: Version
    table: int
    is_unreachable: bool
    is_past: bool = False

    @property
    def type(self) -> int:
        """Return the kernel's number of the type of these routes."""
        if self.is_past:
            return RTN_THROW
        return RTN_UNREACHABLE if self.is_unreachable else RTN_UNICAST


@dataclass(slots=True)
class RouteSet:
    """The routes of one kind.  *source* is the address from which the host sends, None for no preference."""

    destinations: set[Destination]
    source: IPAddress | None = None


PlannedRoutes: TypeAlias = "Mapping[RouteKind, RouteSet]"


def planned_routes(plan: HostPlan, number: int) -> PlannedRoutes:
    """Return the routes that *plan* requires, for the agent whose tables have *number*.  They depend on its addresses,
    `routes`, `policy_routes`, `returned` and `inside`.
    """
    sources: dict[int, IPAddress] = {}
    for address in plan.addresses:
        sources.setdefault(address.version, address.ip)
    placed = [(RT_TABLE_MAIN, network) for network in plan.routes]
    placed += [(number + network.prefixlen, network) for network in plan.policy_routes]
    answering = {address.version for address in plan.returned}
    placed += [(number + ANSWERS, EVERYWHERE[version]) for version in sorted(answering)]
    destinations: dict[tuple[Version, int], set[Destination]] = {}
    for table, network in placed:
        destinations.setdefault((network.version, table), set()).add(_destination(network))
    routes: dict[RouteKind, RouteSet] = {}
    for (version, table), found in destinations.items():
        routes[RouteKind(version, table, is_unreachable=True)] = RouteSet(found)
        routes[RouteKind(version, table, is_unreachable=False)] = RouteSet(found, sources.get(version))
    for network in plan.inside:
        if network.version in answering:
            past = RouteKind(network.version, number + ANSWERS, is_unreachable=False, is_past=True)
            routes.setdefault(past, RouteSet(set())).destinations.add(_destination(network))
    return routes


class Routes:
    """The routes that we have set up, in `ours`, and the operations that change them."""

    def __init__(self, kernel: Kernel, interface: str, index: int | None, number: int) -> None:
        self._kernel = kernel
        self._interface = interface
        self._index = index
        self._number = number
        self.ours: dict[RouteKind, RouteSet] = {}

    def read(self, kernel: Kernel) -> dict[RouteKind, RouteSet]:
        """Return the routes in the kernel that carry our labels, read by *kernel*.  Raises OSError."""
        found: dict[RouteKind, RouteSet] = {}
        for version in versions():
            for raw in dump_routes(kernel, version, protocol=PROTOCOL):
                self._take_over(raw, version, found)
        return found

    def read_networks(self) -> Iterator[IPNetwork]:
        """Yield the networks routed into the interface, by any table and whoever set them up.  Raises OSError."""
        for version in versions():
            size, network_of = (4, IPv4Network) if version == 4 else (16, IPv6Network)
            for raw in dump_routes(self._kernel, version, interface=self._index):
                route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
                if raw[ROUTE_TYPE_OFFSET] == RTN_UNICAST and read_number(route.get(RTA_OIF)) == self._index:
                    yield network_of((route.get(RTA_DST, bytes(size)), raw[ROUTE_LENGTH_OFFSET]))

    def forget_source(self, source: IPAddress) -> None:
        """Note that the routes from *source*, an IPv6 address, have lost their source with the address."""
        for kind, routes in self.ours.items():
            if kind.version == 6 and routes.source == source:
                routes.source = UNKNOWN_SOURCE

    def forget_ipv4(self) -> None:
        """Note that the kernel has dropped the IPv4 routes on the tun, as it does with the last IPv4 address."""
        for kind in [kind for kind in self.ours if kind.version == 4 and kind.type == RTN_UNICAST]:
            del self.ours[kind]

    def add(self, kind: RouteKind, wanted: RouteSet) -> None:
        """Add the missing routes of *kind*.  A route that should have another source is replaced in one step.

        Raises HostError, after adding all others.
        """
        ours = self.ours.setdefault(kind, RouteSet(set(), wanted.source))
        if ours.source != wanted.source:
            kept = ours.destinations & wanted.destinations
            failures = self._change(kind, wanted.source, kept, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
            if failures:
                self._refuse(failures)
            ours.source = wanted.source
        missing = wanted.destinations - ours.destinations
        failures = self._change(kind, wanted.source, missing, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)
        ours.destinations |= missing - failures.keys()
        if failures:
            self._refuse(failures)

    def remove(self, kind: RouteKind, unwanted: set[Destination]) -> None:
        """Remove our routes of *kind* to *unwanted*; they may be gone already.  Raises HostError."""
        ours = self.ours[kind]
        failures = self._change(kind, None, unwanted, RTM_DELROUTE, 0)
        failures = {destination: code for destination, code in failures.items() if code not in GONE}
        ours.destinations -= unwanted - failures.keys()
        if not ours.destinations:
            del self.ours[kind]
        if failures:
            self._refuse(failures)

    def _change(
        self,
        kind: RouteKind,
        source: IPAddress | None,
        destinations: set[Destination],
        request: int,
        flags: int,
    ) -> dict[Destination, int]:
        """Send one message for each of *destinations*; return those that the kernel refused, each with its errno."""
        if not destinations:
            return {}
        template = self._message(kind, source, request, flags)
        ordered = list(destinations)
        try:
            refused = self._kernel.do_all(_with_destination(template, each) for each in ordered)
        except OSError as error:  # the socket failed, not a single message
            raise refusal(f"the routes by {self._interface} could not be changed", error) from error
        return {ordered[position]: code for position, code in refused.items()}

    def _message(self, kind: RouteKind, source: IPAddress | None, request: int, flags: int) -> bytes:
        """Return the message for a route of *kind* without a destination: _with_destination() fills it in."""
        scope = RT_SCOPE_UNIVERSE
        if request == RTM_DELROUTE:
            scope = RT_SCOPE_NOWHERE
        elif kind.version == 4 and kind.type == RTN_UNICAST:
            scope = RT_SCOPE_LINK
        table = kind.table if kind.table < 256 else RT_TABLE_UNSPEC
        parts = [
            ROUTE.pack(family_of(kind.version), 0, 0, 0, table, PROTOCOL, scope, kind.type, 0),
            build_attribute(RTA_DST, bytes(4 if kind.version == 4 else 16)),  # first: see DESTINATION_OFFSET
            build_attribute(RTA_TABLE, NUMBER.pack(kind.table)),
            build_attribute(RTA_PRIORITY, NUMBER.pack(self._metric(kind.type))),
        ]
        if kind.type == RTN_UNICAST:
            assert self._index is not None
            parts.append(build_attribute(RTA_OIF, NUMBER.pack(self._index)))
        if source is not None:
            parts.append(build_attribute(RTA_PREFSRC, source.packed))
        return build_message(request, flags, *parts)

    def _take_over(self, raw: bytes, version: Version, found: dict[RouteKind, RouteSet]) -> None:
        """Put the route in *raw* into *found* if it is ours and not another agent's."""
        length, protocol, kind = raw[ROUTE_LENGTH_OFFSET], raw[ROUTE_PROTOCOL_OFFSET], raw[ROUTE_TYPE_OFFSET]
        if protocol != PROTOCOL:  # a kernel before 4.20 shows all routes
            return
        attributes = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
        table = read_number(attributes.get(RTA_TABLE))
        is_past = kind == RTN_THROW and table == self._number + ANSWERS
        if kind not in {RTN_UNICAST, RTN_UNREACHABLE} and not is_past:
            return
        is_of_interface = kind != RTN_UNICAST or read_number(attributes.get(RTA_OIF)) == self._index
        if not is_of_interface or read_number(attributes.get(RTA_PRIORITY)) != self._metric(kind):
            return
        if table != RT_TABLE_MAIN and not is_table_of(self._number, table):
            return
        address_of, size = (IPv4Address, 4) if version == 4 else (IPv6Address, 16)
        source = address_of(attributes[RTA_PREFSRC]) if RTA_PREFSRC in attributes else None
        routes = found.setdefault(
            RouteKind(version, table, kind == RTN_UNREACHABLE, is_past), RouteSet(set(), source)
        )
        routes.destinations.add(bytes([length]) + attributes.get(RTA_DST, bytes(size)))
        if routes.source != source:
            routes.source = UNKNOWN_SOURCE

    def _metric(self, kind: int) -> int:
        return METRIC if kind == RTN_UNICAST else self._number

    def _refuse(self, failures: dict[Destination, int]) -> NoReturn:
        destination, code = next(iter(failures.items()))
        network = ip_network((destination[1:], destination[0]))
        error = OSError(code, os.strerror(code))
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        if code == errno.EEXIST:
            raise HostError(
                f"{network}{others} already has a route with our metric, of another overlay agent or made by hand: "
                f"remove that route (ip route show {network} shows it), or the prefix from one of the peers files"
            ) from error
        raise refusal(
            f"the route to {network}{others} by {self._interface} could not be changed", error
        ) from error


def _destination(network: IPNetwork) -> Destination:
    return bytes([network.prefixlen]) + network.network_address.packed


def _with_destination(template: bytes, destination: Destination) -> bytearray:
    """Return the route message *template* with this destination, which is its first attribute."""
    message = bytearray(template)
    message[ROUTE_LENGTH_OFFSET] = destination[0]
    message[DESTINATION_OFFSET : DESTINATION_OFFSET + len(destination) - 1] = destination[1:]
    return message
