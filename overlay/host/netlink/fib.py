"""The routes of this host, whoever made them: which one an address matches, and which networks the host is on."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from overlay.host.netlink.kernel import dump_routes, versions
from overlay.host.netlink.rtnetlink import (
    NUMBER,
    ROUTE,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_MARK,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTM_F_FIB_MATCH,
    RTM_F_LOOKUP_TABLE,
    RTM_GETROUTE,
    RTN_BLACKHOLE,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    build_attribute,
    build_message,
    family_of,
    read_attributes,
    read_number,
)
from overlay.linux import NLM_F_ACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.plan import IPAddress, IPNetwork

# Specification: linux/rtnetlink.h
# RTPROT_ for kernel, boot, static, ra and dhcp
# Routing daemons have others; a table of theirs with a million routes is not read, and holds no link of the host.
RTPROT_KERNEL = 2
ORIGINS = (RTPROT_KERNEL, 3, 4, 9, 16)
REJECTING = {RTN_BLACKHOLE: "blackhole", RTN_UNREACHABLE: "unreachable", RTN_PROHIBIT: "prohibit"}


@dataclass(frozen=True, slots=True)
class Link:
    """A network that is reached by an interface without a gateway; a lower *metric* is preferred."""

    network: IPNetwork
    index: int
    metric: int


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route that the kernel or an administrator made.

    *index* is that of the interface, 0 if it has several next hops, or rejects packets; *rejects* is the type of one
    that does: ``blackhole``, ``unreachable`` or ``prohibit``.  *is_kernels* tells that an address of this host made it.
    """

    network: IPNetwork
    index: int
    table: int
    gateway: IPAddress | None = None
    rejects: str | None = None
    is_kernels: bool = False


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The route that packets to an address take.  *gateway* is None if the address is on the link itself.

    Before Linux 4.13 *network* is only that address.
    """

    network: IPNetwork
    index: int
    table: int
    gateway: IPAddress | None
    is_local: bool  # the address is one of the host's own


def match(kernel: Kernel, address: IPAddress, fwmark: int | None) -> RouteMatch | None:
    """Return the route to *address* for packets of this host with that mark; None if there is none."""
    size, network_of, flags = (
        (4, IPv4Network, RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE)
        if address.version == 4
        else (16, IPv6Network, RTM_F_FIB_MATCH)
    )
    raw = _ask(kernel, address, fwmark, flags)
    if raw is None:
        return None
    kind = raw[ROUTE_TYPE_OFFSET]
    if kind not in {RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST}:
        return None
    route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
    return RouteMatch(
        network_of((route.get(RTA_DST, bytes(size)), raw[ROUTE_LENGTH_OFFSET])),
        read_number(route.get(RTA_OIF)),
        read_number(route.get(RTA_TABLE)),
        _gateway(route),
        is_local=kind in {RTN_LOCAL, RTN_BROADCAST},
    )


def look_up(kernel: Kernel, address: IPAddress, fwmark: int | None) -> dict[int, bytes] | None:
    """Return the attributes of the route to *address* for packets of this host with that mark.

    None if the route does not lead out of this host.
    """
    raw = _ask(kernel, address, fwmark)
    if raw is None or raw[ROUTE_TYPE_OFFSET] != RTN_UNICAST:
        return None
    return dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))


def read_links(kernel: Kernel) -> Iterator[Link]:
    """Yield the networks that the main table routes directly to an interface.  Raises OSError.

    IPv6 link-local networks are left out: every interface has them, and nothing is routed there.
    """
    for route, metric in _read(kernel, RT_TABLE_MAIN, RTN_UNICAST):
        if route.index and route.gateway is None and not route.network.is_link_local:
            yield Link(route.network, route.index, metric)


def read_host_routes(kernel: Kernel) -> Iterator[HostRoute]:
    """Yield the routes of all tables that lead out of this host or reject packets, except for those of routing
    daemons and agents.  Raises OSError.
    """
    for route, _ in _read(kernel, 0, 0):
        yield route


def _ask(kernel: Kernel, address: IPAddress, fwmark: int | None, flags: int = 0) -> bytes | None:
    """Return the kernel's answer about the route to *address*; None if it has none."""
    size = len(address.packed)
    route = ROUTE.pack(family_of(address.version), size * 8, 0, 0, 0, 0, 0, 0, flags)
    mark = build_attribute(RTA_MARK, NUMBER.pack(fwmark)) if fwmark else b""
    question = build_message(RTM_GETROUTE, NLM_F_ACK, route, build_attribute(RTA_DST, address.packed), mark)
    try:
        (raw,) = kernel.ask(question)
    except OSError:
        return None
    return raw


def _read(kernel: Kernel, table: int, only: int) -> Iterator[tuple[HostRoute, int]]:
    """Yield the routes of *table* and type *only*, 0 for any, with the metric of each."""
    for version in versions():
        size, network_of = (4, IPv4Network) if version == 4 else (16, IPv6Network)
        for origin in ORIGINS:
            for raw in dump_routes(kernel, version, table=table, protocol=origin, kind=only):
                kind = raw[ROUTE_TYPE_OFFSET]
                # A kernel before 4.20 shows all routes.
                if raw[ROUTE_PROTOCOL_OFFSET] != origin or (only and kind != only):
                    continue
                if kind != RTN_UNICAST and kind not in REJECTING:
                    continue
                route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
                found = HostRoute(
                    network_of((route.get(RTA_DST, bytes(size)), raw[ROUTE_LENGTH_OFFSET])),
                    0 if kind in REJECTING else read_number(route.get(RTA_OIF)),
                    read_number(route.get(RTA_TABLE)),
                    _gateway(route),
                    REJECTING.get(kind),
                    origin == RTPROT_KERNEL,
                )
                if table in {0, found.table}:
                    yield found, read_number(route.get(RTA_PRIORITY))


def _gateway(route: dict[int, bytes]) -> IPAddress | None:
    gateway, via = route.get(RTA_GATEWAY), route.get(RTA_VIA)
    if gateway is None and via is not None:
        gateway = via[2:]
    return None if gateway is None else ip_address(gateway)
