"""The routes, rules, addresses and link around one tun device, brought from what is there to a plan."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, assert_never

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from overlay.errors import HostError
from overlay.host import sysctl
from overlay.host.netlink.fib import match, read_links
from overlay.host.netlink.kernel import Kernel, refusal, versions
from overlay.host.netlink.path_mtu_exceptions import read_learnt
from overlay.host.netlink.rtnetlink import (
    ATTRIBUTE,
    CACHEINFO_EXPIRES,
    NETLINK_HEADER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    ROUTE_ATTRIBUTES_OFFSET,
    ROUTE_LENGTH_OFFSET,
    ROUTE_PROTOCOL_OFFSET,
    ROUTE_TYPE_OFFSET,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RT_TABLE_UNSPEC,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTAX_MTU,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    family_of,
    read_attributes,
    read_number,
)
from overlay.host.netlink.watch import Watch
from overlay.host.ownership import PROTOCOL, number_of
from overlay.host.plan import Device
from overlay.wire.icmp import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from overlay.host.netlink.fib import Link, Match
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.host.netlink.rtnetlink import Version
    from overlay.host.plan import HostPlan, IPAddress, IPInterface, IPNetwork

# Specification: linux/netlink.h, linux/rtnetlink.h, linux/fib_rules.h, linux/if_addr.h, linux/if_link.h
# All numbers are in the byte order of the host.
IFA_PROTO = 11  # since Linux 5.18; before, it is not looked at
FR_ACT_TO_TBL, FR_ACT_GOTO, FR_ACT_NOP = 1, 2, 3
FIB_RULE_INVERT = 0x2
IFF_UP = 0x1
IFA_F_NODAD = 0x002  # usable at once; nobody else is on this link
IFA_F_NOPREFIXROUTE = 0x200
IN6_ADDR_GEN_MODE_NONE = 1

# Ours
# Worse than what the kernel, DHCP or an administrator usually give: their route for the same prefix goes on to win.
METRIC = 5182
# The first priority: late, so that rules that somebody numbered on purpose go first, but before main's 32766.
RULES = 31_000
BEHIND_RULES = RULES + 300  # the last of a prefix length is RULES + 257
TRANSMIT_QUEUE = 1000  # packets; the default of 500 for a tun is 7 ms at 1 Gbit/s
GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL}  # nothing left to remove

MIXED = IPv4Address(0)  # the source of a shelf whose routes have several: like none that is wanted
# Where a field stands, from the start of a message
DESTINATION_OFFSET = ROUTE_ATTRIBUTES_OFFSET + 4  # where it is the first attribute
ADDRESS_ATTRIBUTES_OFFSET = NETLINK_HEADER.size + 8
LENGTH = struct.Struct("=I")  # at the start of a message


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Where routes of one kind stand: they differ only in their destination."""

    version: Version
    table: int
    is_unreachable: bool


@dataclass(slots=True)
class _Routes:
    """The routes of one shelf.  *source* is the address the host sends from, None for no preference."""

    networks: set[IPNetwork]
    source: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class _Address:
    """An address of the tun; *far* is the peer's address of a point-to-point link, else its own."""

    interface: IPInterface
    far: IPAddress

    @property
    def version(self) -> Version:
        return self.interface.version

    def __str__(self) -> str:
        return str(self.interface)


@dataclass(frozen=True, slots=True)
class _Link:
    """What apply() changes at the link of a persistent device."""

    is_up: bool
    mtu: int
    queue: int
    address_mode: int | None
    is_without_ipv6: bool
    mac: str | None  # None for a tun


@dataclass(frozen=True, slots=True)
class _PreferMain:
    """The rule: to *network* lookup main, unless what main has is of *suppressed* bits or less."""

    network: IPNetwork
    suppressed: int


@dataclass(frozen=True, slots=True)
class _Capture:
    """The rule: what has no *fwmark* looks up our table for prefixes of *length*."""

    version: Version
    length: int
    fwmark: int


@dataclass(frozen=True, slots=True)
class _PassBy:
    """The rule: what is of the user *uid* goes on behind our rules."""

    version: Version
    uid: int


@dataclass(frozen=True, slots=True)
class _Behind:
    """The rule behind our others, which does nothing."""

    version: Version


_Rule: TypeAlias = _PreferMain | _Capture | _PassBy | _Behind


class Routing:
    """What this agent has set up around one tun device, and the way to change it.

    Every call is synchronous.  One thread at a time may use it.
    """

    def __init__(self, interface: str, index: int | None, *, is_persistent: bool = False) -> None:
        """*index* None, where there is no tun, is enough to remove what a killed agent left: read_back(), withdraw().

        What was set at the link of a persistent device is set back by withdraw().
        """
        self._interface = interface
        self._index = index
        self._is_persistent = is_persistent
        self._former: _Link | None = None  # of a persistent device, once it has been changed
        self._number = number_of(interface)
        try:
            self._kernel = Kernel()
        except OSError as error:
            raise refusal("the routing tables of this host are out of reach", error) from error
        self._mtu: int | None = None  # None: the link is not set up
        self._mac: bytes | None = None
        self._addresses: dict[_Address, None] = {}
        self._shelves: dict[_Shelf, _Routes] = {}
        self._rules: set[_Rule] = set()
        self._questions: dict[tuple[Version, int], bytes] = {}  # for routes, by family and mark
        self._link_mtus: dict[int, int | None] = {}

    def read_back(self) -> int:
        """Take over what stands in the kernel as ours, whoever of our interface name put it there; return how much.

        At start these are the leftovers of a killed agent: the next apply() keeps what it needs of them and removes
        the rest.  Later, it corrects our memory after somebody else took the link down or removed our routes.
        """
        self._mtu = None
        self._link_mtus.clear()
        try:
            self._addresses = dict.fromkeys(
                address
                for address, is_labelled in self._read_addresses().items()
                if is_labelled or address in self._addresses
            )
            self._shelves = self._read_routes()
            self._rules = set(self._read_rules())
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error
        return len(self._rules) + sum(len(routes.networks) for routes in self._shelves.values())

    def apply(self, plan: HostPlan) -> None:
        """Bring the host from what is there to *plan*, changing only the difference, new before old.

        Raises HostError if the kernel refuses something; what was done by then is remembered, so that another
        apply(), say with the plan before, leads back.
        """
        assert self._index is not None
        shelves = self._planned_shelves(plan)
        rules = _planned_rules(plan)

        self._set_up_link(plan)
        if not any(address.version == 4 for address in plan.addresses):
            self._remove_last_ipv4_addresses()
        addresses = [_Address(each, plan.far_end_of(each)) for each in plan.addresses]
        for address in addresses:
            if address not in self._addresses:
                self._make_way(address)
                self._add_address(self._first_form(address))
        # The unreachable twin first: no moment, and no kill, leaves a prefix to the default route.
        for shelf in sorted(shelves, key=lambda shelf: not shelf.is_unreachable):
            self._add_routes(shelf, shelves[shelf])
        for rule in sorted(rules - self._rules, key=_rule_priority):
            self._add_rule(rule)

        for rule in sorted(self._rules - rules, key=_rule_priority, reverse=True):
            self._remove_rule(rule)
        for shelf in sorted(self._shelves, key=lambda shelf: shelf.is_unreachable):
            wanted = shelves[shelf].networks if shelf in shelves else set()
            self._remove_routes(shelf, self._shelves[shelf].networks - wanted)
        forms = {_Address(address.interface, address.interface.ip) for address in addresses}
        for address in self._addresses.keys() - forms - set(addresses):
            self._remove_address(address)
        for address in addresses:
            if address not in self._addresses:
                self._add_address(address)
        for address in self._addresses.keys() - set(addresses):
            self._remove_address(address)

    def withdraw(self) -> None:
        """Remove everything of ours; the host is then as it was.  What is gone already is no error."""
        for rule in sorted(self._rules, key=_rule_priority, reverse=True):
            self._remove_rule(rule)
        for shelf in sorted(self._shelves, key=lambda shelf: shelf.is_unreachable):
            self._remove_routes(shelf, set(self._shelves[shelf].networks))
        for address in list(self._addresses):
            self._remove_address(address)
        if self._former is not None:
            self._set_back_link(self._former)
            self._former = self._mtu = None

    def name_back(self) -> None:
        """Give the interface its own name again; apply() puts back what the moment that it is down for takes away.

        Raises HostError, as where another interface has the name by now.
        """
        try:
            self._change_link([], 0, IFF_UP)  # kernels before 6.2 rename no interface that is up
            self._change_link([("IFLA_IFNAME", self._interface)], 0)
        except OSError as error:
            raise refusal(f"{self._interface} could not be given its name again", error) from error

    def device(self) -> Device:
        """Return how the interface stands, whoever set it up so.  Needs no privilege."""
        try:
            link = self._read_link()
            addresses = frozenset(address.interface.ip for address in self._read_addresses())
            mac = bytes.fromhex(link.mac.replace(":", "")) if link.mac else None
            return Device(link.is_up, link.mtu, addresses, frozenset(self._read_networks()), mac)
        except OSError as error:
            raise refusal(f"the state of {self._interface} could not be read", error) from error

    def route_index(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return the index of the interface by which packets to *address* leave; None if there is none."""
        route = self._ask_route(address, fwmark)
        return read_number(route.get(RTA_OIF)) or None if route is not None else None

    def route_mtu(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return how many bytes one packet to *address* may have on the underlay, by the route and by its device.

        What ICMP errors have taught the kernel meanwhile expires, and counts only for the peer that is there: the
        forwarder asks for it.
        None if no route leads there, or only our own tun does: then the tunnel runs inside itself or inside
        another peer's, and the answer would shrink with every question.
        """
        route = self._ask_route(address, fwmark)
        index = read_number(route.get(RTA_OIF)) if route is not None else 0
        if route is None or not index or index == self._index:
            return None
        metrics = dict(read_attributes(route.get(RTA_METRICS, b""), 0))
        is_learnt = any(route.get(RTA_CACHEINFO, b"")[CACHEINFO_EXPIRES])
        known = 0 if is_learnt else read_number(metrics.get(RTAX_MTU))
        return min((mtu for mtu in (known, self._link_mtu(index)) if mtu), default=None)

    def match(self, address: IPAddress, fwmark: int | None = None) -> Match | None:
        """Return the route that packets to *address* take from this host; None if there is none."""
        return match(self._kernel, address, fwmark)

    def links(self) -> list[Link]:
        """Return the networks that this host is on, but for those by its tun.  Raises HostError."""
        try:
            return [link for link in read_links(self._kernel) if link.index != self._index]
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def learnt(self) -> Mapping[str, LearntMtu]:
        """Return what ICMP errors taught the kernel of paths, by address.  Raises HostError."""
        try:
            return read_learnt(self._kernel)
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def watch(self, *, is_ours: bool = True) -> Watch:
        """Return a socket that becomes readable when links, addresses, routes or rules change.

        Changes of our own interface tell nothing where it *is_ours* to set up, unless it is not what was set up.
        """
        return Watch(self._kernel.port, self._index if is_ours else None, self._is_as_wanted)

    def _is_as_wanted(self, name: str, mtu: int) -> bool:
        return name == self._interface and self._mtu in {mtu, None}

    def forget(self) -> None:
        """Ask for the MTU of each device again: the network changed."""
        self._link_mtus.clear()

    def close(self) -> None:
        """Close the socket to the kernel; what is set up stays."""
        self._kernel.close()

    def _ask_route(self, address: IPAddress, fwmark: int | None) -> dict[int, bytes] | None:
        """Return the attributes of the route to *address*; None if it is no way out of this host.

        Read by hand, as in _take_over(): thousands of peers may move at once.
        """
        key = (address.version, fwmark or 0)
        if key not in self._questions:
            self._questions[key] = _route_question(*key)
        try:
            (raw,) = self._kernel.ask(_with_destination(self._questions[key], ip_network(address.packed)))
        except OSError:
            return None
        if raw[ROUTE_TYPE_OFFSET] != RTN_UNICAST:
            return None
        return dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))

    # What a plan comes to

    def _planned_shelves(self, plan: HostPlan) -> dict[_Shelf, _Routes]:
        sources: dict[int, IPAddress] = {}
        for address in plan.addresses:
            sources.setdefault(address.version, address.ip)
        placed = [(RT_TABLE_MAIN, network) for network in plan.routes]
        placed += [(self._number + network.prefixlen, network) for network in plan.policy_routes]
        shelves: dict[_Shelf, _Routes] = {}
        for table, network in placed:
            version = network.version
            for is_unreachable in (True, False):
                shelf = _Shelf(version, table, is_unreachable)
                if shelf not in shelves:
                    shelves[shelf] = _Routes(set(), None if is_unreachable else sources.get(version))
                shelves[shelf].networks.add(network)
        return shelves

    # The link and its addresses

    def _set_up_link(self, plan: HostPlan) -> None:
        if plan.mtu == self._mtu and plan.mac == self._mac:
            return
        attributes: list[tuple[str, object]] = [("IFLA_MTU", plan.mtu)]
        later: list[tuple[str, object]] = []
        if self._is_persistent and self._former is None:
            try:
                self._former = self._read_link()
            except OSError as error:
                raise refusal(f"the state of {self._interface} could not be read", error) from error
        if plan.mac is not None:
            attributes.append(("IFLA_ADDRESS", plan.mac.hex(":")))
        if self._mtu is None:
            if not self._is_persistent:  # else it is an administrator's setting, see overlay/host/settings.py
                sysctl.loosen_rp_filter(self._interface)
                sysctl.stop_redirects(self._interface)
            attributes.append(("IFLA_TXQLEN", TRANSMIT_QUEUE))
        # Below its minimum MTU, a device has no IPv6, and the kernel refuses what is said of it.
        if sysctl.has_ipv6() and plan.mtu >= IPV6_MINIMUM_MTU > (self._mtu or 0):
            if _has_ipv6(plan):
                sysctl.enable_ipv6(self._interface)
            # No link-local address: its router solicitations would ask every peer for a session.  A tap that has
            # addresses asks others for theirs from it.
            if plan.mac is None or not plan.addresses:
                silent = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
                later = [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", silent)]})]
        try:
            self._change_link(attributes, 0)
            if later:
                self._change_link(later, 0)  # by itself: the MTU may be what lets the device have IPv6
            if self._mtu is None:
                self._change_link([], IFF_UP)  # by itself: in one message the kernel would do this first
        except OSError as error:
            raise refusal(f"{self._interface} could not be set up with MTU {plan.mtu}", error) from error
        self._mtu, self._mac = plan.mtu, plan.mac

    def _set_back_link(self, former: _Link) -> None:
        """Make the link of a persistent device what it was."""
        attributes: list[tuple[str, object]] = [("IFLA_MTU", former.mtu), ("IFLA_TXQLEN", former.queue)]
        if former.mac and self._mac is not None:
            attributes.append(("IFLA_ADDRESS", former.mac))
        if former.address_mode is not None:
            mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", former.address_mode)]}
            attributes.append(("IFLA_AF_SPEC", {"attrs": [("AF_INET6", mode)]}))
        try:
            if not former.is_up:
                self._change_link([], 0, IFF_UP)
            self._change_link(attributes, 0)
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(f"{self._interface} could not be set back to what it was", error) from error
        if former.is_without_ipv6:
            sysctl.disable_ipv6(self._interface)

    def _change_link(
        self, attributes: list[tuple[str, object]], flags: int, change: int | None = None
    ) -> None:
        message = ifinfmsg()
        message["index"] = self._index
        message["flags"] = flags
        message["change"] = flags if change is None else change
        message["attrs"] = attributes
        self._kernel.do(_encode(message, RTM_NEWLINK, 0))

    def _link_mtu(self, index: int) -> int | None:
        """Return the MTU of a device; it is remembered until read_back(), which follows each change of the network."""
        if index in self._link_mtus:
            return self._link_mtus[index]
        try:
            mtu: int | None = self._ask_link(index).get_attr("IFLA_MTU")
        except OSError:
            return None
        self._link_mtus[index] = mtu
        return mtu

    def _ask_link(self, index: int) -> Any:
        message = ifinfmsg()
        message["index"] = index
        (raw,) = self._kernel.ask(_encode(message, RTM_GETLINK, NLM_F_ACK))
        return _decode(ifinfmsg, raw)

    def _read_link(self) -> _Link:
        assert self._index is not None
        found = self._ask_link(self._index)
        families = found.get_attr("IFLA_AF_SPEC")
        of_ipv6 = families.get_attr("AF_INET6") if families is not None else None
        return _Link(
            bool(found["flags"] & IFF_UP),
            found.get_attr("IFLA_MTU"),
            found.get_attr("IFLA_TXQLEN"),
            of_ipv6.get_attr("IFLA_INET6_ADDR_GEN_MODE") if of_ipv6 is not None else None,
            sysctl.is_ipv6_disabled(self._interface),
            found.get_attr("IFLA_ADDRESS"),
        )

    def _make_way(self, address: _Address) -> None:
        """Remove our IPv6 address that is *address* with another far end, or has the same far end.

        The kernel takes no second one of the former; and its route to a far end, which is made whatever the flags say,
        would vanish with the latter.  Our routes lose their source with it, and are to be given one again.
        """
        if address.version != 6:
            return
        for other in list(self._addresses):
            has_same_far_end = other.far == address.far != address.interface.ip
            if other.interface == address.interface or has_same_far_end:
                self._remove_address(other)
                for shelf, routes in self._shelves.items():
                    if shelf.version == 6 and routes.source == other.interface.ip:
                        routes.source = MIXED

    def _first_form(self, address: _Address) -> _Address:
        """Return *address*, for as long without its far end as another IPv4 address of ours has that.

        To the kernel the second would be a secondary of the first, and vanish with it.
        """
        is_taken = any(each.far == address.far != each.interface.ip for each in self._addresses)
        if address.version == 6 or not is_taken:
            return address
        return _Address(address.interface, address.interface.ip)

    def _add_address(self, address: _Address) -> None:
        try:
            self._do_address(address, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise refusal(f"{address} could not be given to {self._interface}", error) from error
            return  # somebody else's, who takes it away
        self._addresses[address] = None

    def _remove_address(self, address: _Address) -> None:
        try:
            self._do_address(address, RTM_DELADDR)
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(f"{address} could not be taken from {self._interface}", error) from error
        del self._addresses[address]

    def _remove_last_ipv4_addresses(self) -> None:
        """Remove all IPv4 addresses and forget the IPv4 routes on the tun: with the last, the kernel drops them."""
        leaving = [address for address in self._addresses if address.version == 4]
        for address in leaving:
            self._remove_address(address)
        if leaving and not any(address.version == 4 for address in self._read_addresses()):
            for shelf in [
                shelf for shelf in self._shelves if shelf.version == 4 and not shelf.is_unreachable
            ]:
                del self._shelves[shelf]

    def _do_address(self, address: _Address, kind: int, flags: int = 0) -> None:
        data = bytearray(_encode(self._address_message(address), kind, flags))
        # Not every pyroute2 knows this attribute.
        data += ATTRIBUTE.pack(ATTRIBUTE.size + 1, IFA_PROTO) + bytes([PROTOCOL, 0, 0, 0])
        LENGTH.pack_into(data, 0, len(data))
        refused = self._kernel.do_all([data])
        if refused:
            raise OSError(refused[0], os.strerror(refused[0]))

    def _address_message(self, address: _Address) -> ifaddrmsg:
        message = ifaddrmsg()
        message["family"] = family_of(address.version)
        message["prefixlen"] = address.interface.network.prefixlen
        message["index"] = self._index
        message["attrs"] = [
            ("IFA_LOCAL", str(address.interface.ip)),
            ("IFA_ADDRESS", str(address.far)),
            ("IFA_FLAGS", IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if address.version == 6 else 0)),
        ]
        return message

    def _read_addresses(self) -> dict[_Address, bool]:
        """Return the addresses of the interface, and whether each carries our label."""
        if self._index is None:
            return {}
        message = ifaddrmsg()
        message["index"] = self._index
        addresses: dict[_Address, bool] = {}
        for raw in self._kernel.ask(_encode(message, RTM_GETADDR, NLM_F_DUMP)):
            found = _decode(ifaddrmsg, raw)
            if found["index"] == self._index:
                far = found.get_attr("IFA_ADDRESS")
                interface = ip_interface(f"{found.get_attr('IFA_LOCAL') or far}/{found['prefixlen']}")
                label = dict(read_attributes(raw, ADDRESS_ATTRIBUTES_OFFSET)).get(IFA_PROTO)
                addresses[_Address(interface, ip_address(far))] = read_number(label) == PROTOCOL
        return addresses

    # Routes

    def _read_networks(self) -> Iterator[IPNetwork]:
        """Yield what leads into the interface, by any table and whoever says so."""
        for version in versions():
            message = rtmsg()
            message["family"] = family_of(version)
            message["attrs"] = [("RTA_OIF", self._index)]
            size, network_of = (4, IPv4Network) if version == 4 else (16, IPv6Network)
            for raw in self._kernel.ask(_encode(message, RTM_GETROUTE, NLM_F_DUMP)):
                route = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
                if raw[ROUTE_TYPE_OFFSET] == RTN_UNICAST and read_number(route.get(RTA_OIF)) == self._index:
                    yield network_of((route.get(RTA_DST, bytes(size)), raw[ROUTE_LENGTH_OFFSET]))

    def _add_routes(self, shelf: _Shelf, wanted: _Routes) -> None:
        """Add what is missing on *shelf*.  A route that should name another source is replaced in one step."""
        ours = self._shelves.setdefault(shelf, _Routes(set(), wanted.source))
        if ours.source != wanted.source:
            kept = ours.networks & wanted.networks
            failures = self._change_routes(
                shelf, wanted.source, kept, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE
            )
            if failures:
                self._refuse_routes(failures)
            ours.source = wanted.source
        missing = wanted.networks - ours.networks
        failures = self._change_routes(shelf, wanted.source, missing, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)
        ours.networks |= missing - failures.keys()
        if failures:
            self._refuse_routes(failures)

    def _remove_routes(self, shelf: _Shelf, networks: set[IPNetwork]) -> None:
        ours = self._shelves[shelf]
        failures = self._change_routes(shelf, None, networks, RTM_DELROUTE, 0)
        failures = {network: code for network, code in failures.items() if code not in GONE}
        ours.networks -= networks - failures.keys()
        if not ours.networks:
            del self._shelves[shelf]
        if failures:
            self._refuse_routes(failures)

    def _change_routes(
        self, shelf: _Shelf, source: IPAddress | None, networks: set[IPNetwork], kind: int, flags: int
    ) -> dict[IPNetwork, int]:
        """Send one message for each of *networks*; return which the kernel refused, each with its errno."""
        if not networks:
            return {}
        template = self._route_message(shelf, source, kind, flags)
        ordered = list(networks)
        try:
            refused = self._kernel.do_all(_with_destination(template, network) for network in ordered)
        except OSError as error:  # not one message but the conversation failed
            raise refusal(f"the routes by {self._interface} could not be changed", error) from error
        return {ordered[position]: code for position, code in refused.items()}

    def _route_message(self, shelf: _Shelf, source: IPAddress | None, kind: int, flags: int) -> bytes:
        """Return the message for a route of *shelf* to nowhere yet: _with_destination() fills it in."""
        message = rtmsg()
        message["family"] = family_of(shelf.version)
        message["proto"] = PROTOCOL
        message["type"] = RTN_UNREACHABLE if shelf.is_unreachable else RTN_UNICAST
        message["scope"] = RT_SCOPE_UNIVERSE
        if kind == RTM_DELROUTE:
            message["scope"] = RT_SCOPE_NOWHERE
        elif shelf.version == 4 and not shelf.is_unreachable:
            message["scope"] = RT_SCOPE_LINK
        message["table"] = shelf.table if shelf.table < 256 else RT_TABLE_UNSPEC
        message["attrs"] = [
            (
                "RTA_DST",
                "0.0.0.0" if shelf.version == 4 else "::",
            ),  # first: _with_destination() knows where it is
            ("RTA_TABLE", shelf.table),
            ("RTA_PRIORITY", self._metric(shelf.is_unreachable)),
        ]
        if not shelf.is_unreachable:
            message["attrs"].append(("RTA_OIF", self._index))
        if source is not None:
            message["attrs"].append(("RTA_PREFSRC", str(source)))
        return _encode(message, kind, flags)

    def _read_routes(self) -> dict[_Shelf, _Routes]:
        shelves: dict[_Shelf, _Routes] = {}
        for version in versions():
            message = rtmsg()
            message["family"] = family_of(version)
            message["proto"] = PROTOCOL
            for raw in self._kernel.ask(_encode(message, RTM_GETROUTE, NLM_F_DUMP)):
                self._take_over(raw, version, shelves)
        return shelves

    def _take_over(self, raw: bytes, version: Version, shelves: dict[_Shelf, _Routes]) -> None:
        """Put the route in *raw* into *shelves* if it is ours and not another agent's.

        Read by hand: pyroute2 takes 45 us for it, which is long for 100,000 leftovers.
        """
        length, protocol, kind = raw[ROUTE_LENGTH_OFFSET], raw[ROUTE_PROTOCOL_OFFSET], raw[ROUTE_TYPE_OFFSET]
        if protocol != PROTOCOL:  # a kernel before 4.20 shows all routes
            return
        attributes = dict(read_attributes(raw, ROUTE_ATTRIBUTES_OFFSET))
        table = read_number(attributes.get(RTA_TABLE))
        is_unreachable = kind == RTN_UNREACHABLE
        is_of_interface = is_unreachable or read_number(attributes.get(RTA_OIF)) == self._index
        if not is_of_interface or read_number(attributes.get(RTA_PRIORITY)) != self._metric(is_unreachable):
            return
        if table != RT_TABLE_MAIN and not self._is_our_table(table):
            return
        network_of, address_of, size = (
            (IPv4Network, IPv4Address, 4) if version == 4 else (IPv6Network, IPv6Address, 16)
        )
        source = address_of(attributes[RTA_PREFSRC]) if RTA_PREFSRC in attributes else None
        routes = shelves.setdefault(_Shelf(version, table, is_unreachable), _Routes(set(), source))
        routes.networks.add(network_of((attributes.get(RTA_DST, bytes(size)), length)))
        if routes.source != source:
            routes.source = MIXED

    def _metric(self, is_unreachable: bool) -> int:
        return self._number if is_unreachable else METRIC

    def _is_our_table(self, table: int) -> bool:
        return self._number <= table <= self._number + 128

    def _refuse_routes(self, failures: dict[IPNetwork, int]) -> NoReturn:
        network, code = next(iter(failures.items()))
        error = OSError(code, os.strerror(code))
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        if code == errno.EEXIST:
            raise HostError(
                f"{network}{others} has a route with our metric already, of another overlay agent or made by hand: "
                f"remove that route (ip route show {network} shows it), or the prefix from one of the peers files"
            ) from error
        raise refusal(
            f"the route to {network}{others} by {self._interface} could not be changed", error
        ) from error

    # Rules

    def _add_rule(self, rule: _Rule) -> None:
        try:
            self._kernel.do(_encode(self._rule_message(rule), RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise refusal(
                    f"the routing rule with priority {_rule_priority(rule)} could not be added", error
                ) from error
        self._rules.add(rule)

    def _remove_rule(self, rule: _Rule) -> None:
        try:
            self._kernel.do(_encode(self._rule_message(rule), RTM_DELRULE, 0))
        except OSError as error:
            if error.errno not in GONE:
                raise refusal(
                    f"the routing rule with priority {_rule_priority(rule)} could not be removed", error
                ) from error
        self._rules.discard(rule)

    def _rule_message(self, rule: _Rule) -> fibmsg:
        message = fibmsg()
        message["action"] = FR_ACT_TO_TBL
        message["attrs"] = [("FRA_PRIORITY", _rule_priority(rule)), ("FRA_PROTOCOL", PROTOCOL)]
        match rule:
            case _PreferMain(network, suppressed):
                message["family"] = family_of(network.version)
                message["dst_len"] = network.prefixlen
                message["table"] = RT_TABLE_MAIN
                message["attrs"] += [
                    ("FRA_TABLE", RT_TABLE_MAIN),
                    ("FRA_SUPPRESS_PREFIXLEN", suppressed),
                    ("FRA_FWMARK", self._number),
                    ("FRA_FWMASK", 0),
                ]
                if network.prefixlen:
                    message["attrs"].append(("FRA_DST", str(network.network_address)))
            case _Capture(version, length, fwmark):
                message["family"] = family_of(version)
                message["flags"] = FIB_RULE_INVERT
                message["attrs"] += [("FRA_TABLE", self._number + length), ("FRA_FWMARK", fwmark)]
            case _PassBy(version, uid):
                message["family"] = family_of(version)
                message["action"] = FR_ACT_GOTO
                message["attrs"] += [
                    ("FRA_GOTO", BEHIND_RULES),
                    ("FRA_UID_RANGE", f"{uid}:{uid}"),
                    ("FRA_FWMARK", self._number),
                    ("FRA_FWMASK", 0),
                ]
            case _Behind(version):
                message["family"] = family_of(version)
                message["action"] = FR_ACT_NOP
                message["attrs"] += [("FRA_FWMARK", self._number), ("FRA_FWMASK", 0)]
            case _:
                assert_never(rule)
        return message

    def _read_rules(self) -> Iterator[_Rule]:
        for version in versions():
            message = fibmsg()
            message["family"] = family_of(version)
            for raw in self._kernel.ask(_encode(message, RTM_GETRULE, NLM_F_DUMP)):
                rule = _decode(fibmsg, raw)
                table, mark = rule.get_attr("FRA_TABLE", rule["table"]), rule.get_attr("FRA_FWMARK")
                if rule.get_attr("FRA_PROTOCOL", PROTOCOL) != PROTOCOL:
                    continue
                if mark == self._number and rule["action"] == FR_ACT_NOP:
                    yield _Behind(version)
                elif mark == self._number and rule["action"] == FR_ACT_GOTO:
                    yield _PassBy(version, int(rule.get_attr("FRA_UID_RANGE").partition(":")[0]))
                elif self._is_our_table(table) and mark:
                    yield _Capture(version, table - self._number, mark)
                elif table == RT_TABLE_MAIN and mark == self._number:
                    destination = rule.get_attr("FRA_DST", "0.0.0.0" if version == 4 else "::")
                    network = ip_network(f"{destination}/{rule['dst_len']}")
                    yield _PreferMain(network, rule.get_attr("FRA_SUPPRESS_PREFIXLEN", network.max_prefixlen))


def _planned_rules(plan: HostPlan) -> set[_Rule]:
    if not plan.policy_routes:
        return set()
    assert plan.fwmark, "policy routes need a mark for our own datagrams"
    rules: set[_Rule] = set()
    on_link = set(plan.on_link)
    for network in plan.policy_routes:
        rules.add(_PreferMain(network, network.prefixlen - (network in on_link)))
        rules.add(_Capture(network.version, network.prefixlen, plan.fwmark))
        if plan.passing_uid is not None:
            rules.update({_PassBy(network.version, plan.passing_uid), _Behind(network.version)})
    return rules


def _has_ipv6(plan: HostPlan) -> bool:
    return any(network.version == 6 for network in (*plan.addresses, *plan.routes, *plan.policy_routes))


def _rule_priority(rule: _Rule) -> int:
    match rule:
        case _PreferMain(network):
            return RULES + 2 * (network.max_prefixlen - network.prefixlen)
        case _Capture(version, length, _):
            return RULES + 2 * ((32 if version == 4 else 128) - length) + 1
        case _PassBy():
            return RULES - 1
        case _Behind():
            return BEHIND_RULES
        case _:
            assert_never(rule)


def _route_question(version: Version, fwmark: int) -> bytes:
    """Return the question for a route to nowhere yet: _with_destination() fills it in."""
    message = rtmsg()
    message["family"] = family_of(version)
    message["attrs"] = [("RTA_DST", "0.0.0.0" if version == 4 else "::")]
    if fwmark:
        message["attrs"].append(("RTA_MARK", fwmark))
    return _encode(message, RTM_GETROUTE, NLM_F_ACK)


def _encode(message: Any, kind: int, flags: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message.encode()
    return bytes(message.data)


def _decode(form: Any, raw: bytes) -> Any:
    message = form(raw)
    message.decode()
    return message


def _with_destination(template: bytes, network: IPNetwork) -> bytearray:
    """Return the route message *template* with *network* for its destination, whose attribute stands first."""
    packed = network.network_address.packed
    message = bytearray(template)
    message[ROUTE_LENGTH_OFFSET] = network.prefixlen
    message[DESTINATION_OFFSET : DESTINATION_OFFSET + len(packed)] = packed
    return message
