"""veth pairs whose other end is in a container, as seen by the host.

The namespace of the other end is not entered: the kernel makes that end there, given a descriptor.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from overlay.host.netlink.entries import new_address, new_neighbour, new_route
from overlay.host.netlink.kernel import GONE, dump_routes, versions
from overlay.host.netlink.link import IN6_ADDR_GEN_MODE_NONE
from overlay.host.netlink.rtnetlink import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    INTERFACE,
    LINK_ATTRIBUTES_OFFSET,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NUMBER,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    RTA_DST,
    RTA_METRICS,
    RTA_OIF,
    RTAX_MTU,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    build_attribute,
    build_message,
    read_attributes,
    read_number,
)
from overlay.host.ownership import PROTOCOL
from overlay.linux import IFF_UP, NETLINK_HEADER, NLM_F_ACK, NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.host.netlink.kernel import Kernel
    from overlay.host.plan import IPAddress

# Specification: linux/if_link.h, linux/veth.h
IFLA_LINK, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC = 5, 18, 20, 26
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INET6_ADDR_GEN_MODE = 8
VETH_INFO_PEER = 1
VETH = b"veth"

# Ours
# Of the host's end, the maximum: then a packet that is too big for the tunnel reaches the host, which reports it, and
# is not silently dropped between the two ends.
OUTER_MTU = 65535


@dataclass(frozen=True, slots=True)
class Outer:
    """The host's end of a pair.  *inner* is the index of the other end, in its own namespace."""

    name: str
    index: int
    is_up: bool
    inner: int


@dataclass(frozen=True, slots=True)
class VethEnds:
    """The names and Ethernet addresses of a pair to be made, and the MTU of its inner end."""

    outer: str
    inner: str
    outer_mac: bytes
    inner_mac: bytes
    mtu: int
    alias: str


class Veths:
    """The pairs of this host.  Raises OSError."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def make(self, ends: VethEnds, namespace: int | None) -> Outer:
        """Make a pair in one step, its inner end in *namespace*, a descriptor; None for the host's own.

        The host's end is up afterwards, and has no address.
        """
        inner = [
            INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            build_attribute(IFLA_IFNAME, ends.inner.encode() + b"\0"),
            build_attribute(IFLA_ADDRESS, ends.inner_mac),
            build_attribute(IFLA_MTU, NUMBER.pack(ends.mtu)),
        ]
        if namespace is not None:
            inner.append(build_attribute(IFLA_NET_NS_FD, NUMBER.pack(namespace)))
        kind = build_attribute(IFLA_INFO_KIND, VETH)
        data = build_attribute(IFLA_INFO_DATA, build_attribute(VETH_INFO_PEER, b"".join(inner)))
        message = build_message(
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            build_attribute(IFLA_IFNAME, ends.outer.encode() + b"\0"),
            build_attribute(IFLA_ADDRESS, ends.outer_mac),
            build_attribute(IFLA_MTU, NUMBER.pack(OUTER_MTU)),
            build_attribute(IFLA_LINKINFO, kind + data),
        )
        self._kernel.do(message)
        found = self.find(ends.outer)
        if found is None:
            raise OSError(errno.ENODEV, "it vanished at once")
        # No link-local address: its router solicitations would reach every container.
        if len(versions()) > 1:
            mode = build_attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
            self._change(found.index, build_attribute(IFLA_AF_SPEC, build_attribute(socket.AF_INET6, mode)))
        self._change(found.index, build_attribute(IFLA_IFALIAS, ends.alias.encode()))
        return found

    def find(self, name: str) -> Outer | None:
        """Return the pair whose host's end is *name*; None if there is no such device, or it is not a veth."""
        question = build_message(
            RTM_GETLINK,
            NLM_F_ACK,
            INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            build_attribute(IFLA_IFNAME, name.encode() + b"\0"),
        )
        try:
            (raw,) = self._kernel.ask(question)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return _read_outer(raw)

    def all(self) -> dict[str, Outer]:
        """Return all pairs that have an end here, by the name of that end."""
        info = build_attribute(
            IFLA_LINKINFO, build_attribute(IFLA_INFO_KIND, VETH)
        )  # the kernel leaves out all others
        question = build_message(RTM_GETLINK, NLM_F_DUMP, INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), info)
        found = map(_read_outer, self._kernel.ask(question))
        return {outer.name: outer for outer in found if outer is not None}

    def remove(self, name: str) -> bool:
        """Remove the pair whose host's end is *name*, which may be gone; return whether it was there."""
        if self.find(name) is None:
            return False
        message = build_message(
            RTM_DELLINK,
            0,
            INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
            build_attribute(IFLA_IFNAME, name.encode() + b"\0"),
        )
        try:
            self._kernel.do(message)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        return True

    def bring_up(self, outer: Outer) -> None:
        """Set the host's end up."""
        self._kernel.do(
            build_message(RTM_NEWLINK, 0, INTERFACE.pack(socket.AF_UNSPEC, 0, outer.index, IFF_UP, IFF_UP))
        )

    def answer(self, outer: Outer, gateways: Iterable[IPAddress]) -> None:
        """Make the host's end answer for *gateways*, whose Ethernet addresses the container does not know."""
        for gateway in gateways:
            self._kernel.do(new_address(outer.index, gateway, is_of_host=True))

    def lead(self, outer: Outer, addresses: Iterable[IPAddress], mac: bytes, mtu: int) -> None:
        """Route packets for *addresses* to *mac* through the host's end, with at most *mtu* bytes each."""
        for address in addresses:
            self._kernel.do(new_neighbour(outer.index, address, mac))
            network = ip_network(address)
            self._kernel.do(new_route(outer.index, network, mtu=mtu, replaces=True))

    def led(self) -> dict[int, dict[IPAddress, int]]:
        """Return the addresses that have a host route of an agent, with its MTU, by device index."""
        found: dict[int, dict[IPAddress, int]] = {}
        for version in versions():
            size = 4 if version == 4 else 16
            for raw in dump_routes(self._kernel, version, protocol=PROTOCOL):
                if raw[ROUTE_PROTOCOL_OFFSET] != PROTOCOL or raw[ROUTE_LENGTH_OFFSET] != size * 8:
                    continue
                route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
                metrics = dict(read_attributes(route.get(RTA_METRICS, b""), 0))
                address = ip_address(route[RTA_DST])
                index = read_number(route.get(RTA_OIF))
                found.setdefault(index, {})[address] = read_number(metrics.get(RTAX_MTU))
        return found

    def _change(self, index: int, attributes: bytes) -> None:
        self._kernel.do(
            build_message(RTM_NEWLINK, 0, INTERFACE.pack(socket.AF_UNSPEC, 0, index, 0, 0), attributes)
        )


def _read_outer(raw: bytes) -> Outer | None:
    _, _, index, flags, _ = INTERFACE.unpack_from(raw, NETLINK_HEADER.size)
    link = dict(read_attributes(raw, LINK_ATTRIBUTES_OFFSET))
    info = dict(read_attributes(link.get(IFLA_LINKINFO, b""), 0))
    if info.get(IFLA_INFO_KIND, b"").rstrip(b"\0") != VETH:
        return None
    name = link[IFLA_IFNAME].partition(b"\0")[0].decode(errors="surrogateescape")
    return Outer(name, index, bool(flags & IFF_UP), read_number(link.get(IFLA_LINK)))
