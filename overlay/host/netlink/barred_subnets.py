"""Routes that reject packets to those addresses of a subnet that no container has."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import GONE, dump_routes, versions
from overlay.host.netlink.rtnetlink import (
    NLM_F_REPLACE,
    NUMBER,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_PRIORITY,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_UNREACHABLE,
    build_attribute,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL, number_of
from overlay.linux import NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.plan import IPNetwork


class BarredSubnets:
    """The routes of the agent of one interface, including those of a killed one.  Raises OSError."""

    def __init__(self, kernel: Kernel, interface: str) -> None:
        self._kernel = kernel
        self._metric = number_of(interface) + 1  # one worse than the twins of the tunnel's routes

    def apply(self, subnets: Iterable[IPNetwork]) -> None:
        """Make these routes the only ones; write nothing if they are already."""
        wanted, there = {each for each in subnets if each.version in versions()}, self._read()
        for network in wanted - there:
            self._kernel.do(self._message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, network))
        for network in there - wanted:
            try:
                self._kernel.do(self._message(RTM_DELROUTE, 0, network))
            except OSError as error:
                if error.errno not in GONE:
                    raise

    def _read(self) -> set[IPNetwork]:
        found: set[IPNetwork] = set()
        for version in versions():
            size = 4 if version == 4 else 16
            for raw in dump_routes(self._kernel, version, protocol=PROTOCOL, kind=RTN_UNREACHABLE):
                route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
                is_ours = raw[ROUTE_PROTOCOL_OFFSET] == PROTOCOL and raw[ROUTE_TYPE_OFFSET] == RTN_UNREACHABLE
                if is_ours and read_number(route.get(RTA_PRIORITY)) == self._metric:
                    found.add(ip_network((route.get(RTA_DST, bytes(size)), raw[ROUTE_LENGTH_OFFSET])))
        return found

    def _message(self, kind: int, flags: int, network: IPNetwork) -> bytes:
        family, length = family_of(network.version), network.prefixlen
        return build_message(
            kind,
            flags,
            ROUTE.pack(family, length, 0, 0, RT_TABLE_MAIN, PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0),
            build_attribute(RTA_DST, network.network_address.packed),
            build_attribute(RTA_PRIORITY, NUMBER.pack(self._metric)),
        )
