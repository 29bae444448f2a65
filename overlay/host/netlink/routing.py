"""The routes, rules, addresses and link of one tun device, brought from their present state to a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.host.netlink.addresses import Address, Addresses
from overlay.host.netlink.fib import look_up, match, read_host_routes, read_links
from overlay.host.netlink.kernel import Kernel, refusal
from overlay.host.netlink.link import DeviceMtus, OwnLink
from overlay.host.netlink.marked_rules import read_marked
from overlay.host.netlink.path_mtu_exceptions import read_learnt
from overlay.host.netlink.routes import Routes, planned_routes
from overlay.host.netlink.rtnetlink import (
    CACHEINFO_EXPIRES,
    RTA_CACHEINFO,
    RTA_METRICS,
    RTA_OIF,
    RTAX_MTU,
    read_attributes,
    read_number,
)
from overlay.host.netlink.rules import Rules, planned_rules, priority
from overlay.host.netlink.watch import Watch
from overlay.host.ownership import number_of
from overlay.host.plan import DeviceState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.host.netlink.fib import HostRoute, Link, RouteMatch
    from overlay.host.netlink.marked_rules import MarkedRule
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.host.netlink.routes import PlannedRoutes, RouteKind, RouteSet
    from overlay.host.plan import HostPlan, IPAddress


class Routing:
    """What this agent has set up around one tun device, and the operations that change it.

    Every call is synchronous.  Only one thread at a time may use it, except for read_routes().
    """

    def __init__(self, interface: str, index: int | None, *, is_persistent: bool = False) -> None:
        """*index* None, for no tun, suffices to remove what a killed agent left, by read_back() and withdraw().

        withdraw() restores what was changed on the link of a persistent device.
        """
        self._interface = interface
        self._index = index
        self._number = number_of(interface)
        try:
            self._kernel = Kernel()
            self._reader = Kernel()  # for another thread
        except OSError as error:
            raise refusal("the routing tables of this host cannot be accessed", error) from error
        self._link = OwnLink(self._kernel, interface, index, is_persistent=is_persistent)
        self._addresses = Addresses(self._kernel, interface, index)
        self._routes = Routes(self._kernel, interface, index, self._number)
        self._rules = Rules(self._kernel, self._number)
        self._device_mtus = DeviceMtus(self._kernel)

    def read_routes(self) -> dict[RouteKind, RouteSet]:
        """Return the routes that carry our labels, for take_over().  Raises HostError.

        Another thread may call this while nothing changes ours: reading 200,000 takes a second.
        """
        try:
            return self._routes.read(self._reader)
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def read_back(self) -> int:
        """Take over what the kernel has that carries our labels, whoever made it; return how much that is.

        At the start this is what a killed agent left: the next apply() keeps what it needs of it and removes the rest.
        Later, it corrects our state after somebody else took the link down or removed our routes.
        """
        return self.take_over(self.read_routes())

    def take_over(self, routes: dict[RouteKind, RouteSet] | None) -> int:
        """Take over addresses and rules as read_back() does, and *routes*, unless they are as we left them."""
        self._link.forget()
        self._device_mtus.forget()
        try:
            self._addresses.read_back()
            self._rules.read_back()
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error
        if routes is not None:
            self._routes.ours = routes
        return self.count

    @property
    def count(self) -> int:
        """How many routes and rules are ours, as far as we know."""
        return len(self._rules.ours) + sum(len(routes.destinations) for routes in self._routes.ours.values())

    def changed(self, plan: HostPlan) -> list[str]:
        """Return as fields of a log line how the interface differs from *plan*, which was applied.  Raises HostError.

        Nothing is changed; read_back() and apply() restore it.
        """
        try:
            link, addresses = self._link.read(), self._addresses.read()
        except OSError as error:
            raise refusal(f"the state of {self._interface} could not be read", error) from error
        fields = [] if link.is_up else ["was=down"]
        if link.mtu != plan.mtu:
            fields.append(f"mtu={link.mtu}")
        if plan.mac is not None and link.mac != plan.mac.hex(":"):
            fields.append(f"address={link.mac}")
        removed = [str(each.interface.ip) for each in self._addresses.ours if each not in addresses]
        return [*fields, f"without={','.join(removed)}"] if removed else fields

    def apply(self, plan: HostPlan, routes: PlannedRoutes | None = None) -> None:
        """Change the host to *plan*, writing only the difference, new before old.

        *routes* are those of planned_routes(), which takes long for many of them, if they were computed before.
        Raises HostError if the kernel refuses something; the changes made by then are remembered, so that another
        apply(), for example with the former plan, undoes them.
        """
        assert self._index is not None
        routes = planned_routes(plan, self._number) if routes is None else routes
        rules = planned_rules(plan)

        self._link.set_up(plan)
        planned = (*plan.addresses, *plan.held)
        if not any(address.version == 4 for address in planned):
            self._remove_last_ipv4_addresses()
        addresses = [Address(each, plan.far_end_of(each)) for each in planned]
        for address in addresses:
            if address not in self._addresses.ours:
                self._make_way(address)
                self._addresses.add(self._addresses.first_form(address))
        # The unreachable twins and the routes that skip a table come first, so that packets never go where they do not
        # belong, not even after a kill.
        for kind in sorted(routes, key=lambda kind: kind.type, reverse=True):
            self._routes.add(kind, routes[kind])
        for rule in sorted(rules - self._rules.ours, key=priority):
            self._rules.add(rule)

        for rule in sorted(self._rules.ours - rules, key=priority, reverse=True):
            self._rules.remove(rule)
        for kind in sorted(self._routes.ours, key=lambda kind: kind.type):
            wanted = routes[kind].destinations if kind in routes else set()
            self._routes.remove(kind, self._routes.ours[kind].destinations - wanted)
        forms = {Address(address.interface, address.interface.ip) for address in addresses}
        for address in self._addresses.ours.keys() - forms - set(addresses):
            self._addresses.remove(address)
        for address in addresses:
            if address not in self._addresses.ours:
                self._addresses.add(address)
        for address in self._addresses.ours.keys() - set(addresses):
            self._addresses.remove(address)

    def withdraw(self) -> None:
        """Remove everything we made, so that the host is as it was. What is already gone is not an error."""
        for rule in sorted(self._rules.ours, key=priority, reverse=True):
            self._rules.remove(rule)
        for kind in sorted(self._routes.ours, key=lambda kind: kind.type):
            self._routes.remove(kind, set(self._routes.ours[kind].destinations))
        for address in list(self._addresses.ours):
            self._addresses.remove(address)
        self._link.set_back()

    def name_back(self) -> None:
        """Give the interface its own name again; apply() restores what is lost while it is down for that.

        Raises HostError, for example if another interface has taken the name.
        """
        self._link.name_back()

    def device(self) -> DeviceState:
        """Return the state of the interface, whoever set it up.  Needs no privilege."""
        try:
            link = self._link.read()
            addresses = frozenset(address.interface.ip for address in self._addresses.read())
            mac = bytes.fromhex(link.mac.replace(":", "")) if link.mac else None
            return DeviceState(link.is_up, link.mtu, addresses, frozenset(self._routes.read_networks()), mac)
        except OSError as error:
            raise refusal(f"the state of {self._interface} could not be read", error) from error

    def route_index(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return the index of the interface by which packets to *address* leave; None if there is none."""
        route = look_up(self._kernel, address, fwmark)
        return read_number(route.get(RTA_OIF)) or None if route is not None else None

    def route_mtu(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return how many bytes a packet to *address* may have on the underlay, by the route and its device.

        What the kernel has learned from ICMP errors expires, and only counts for an existing peer: the forwarder asks
        for it.  None if no route leads there, or only our own tun: then the tunnel runs inside itself or inside another
        peer's, and the answer would shrink with every question.
        """
        route = look_up(self._kernel, address, fwmark)
        index = read_number(route.get(RTA_OIF)) if route is not None else 0
        if route is None or not index or index == self._index:
            return None
        metrics = dict(read_attributes(route.get(RTA_METRICS, b""), 0))
        is_learnt = any(route.get(RTA_CACHEINFO, b"")[CACHEINFO_EXPIRES])
        known = 0 if is_learnt else read_number(metrics.get(RTAX_MTU))
        return min((mtu for mtu in (known, self._device_mtus.of(index)) if mtu), default=None)

    def match(self, address: IPAddress, fwmark: int | None = None) -> RouteMatch | None:
        """Return the route that packets to *address* take from this host; None if there is none."""
        return match(self._kernel, address, fwmark)

    def links(self) -> list[Link]:
        """Return the networks that this host is on, except by its tun.  Raises HostError."""
        try:
            return [link for link in read_links(self._kernel) if link.index != self._index]
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def host_routes(self) -> list[HostRoute]:
        """Return the routes of this host that no agent made, except those by its tun.  Raises HostError."""
        try:
            return [route for route in read_host_routes(self._kernel) if route.index != self._index]
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def marked_rules(self) -> list[MarkedRule]:
        """Return the routing rules of others that depend on firewall marks.  Raises HostError."""
        try:
            return list(read_marked(self._kernel))
        except OSError as error:
            raise refusal("the routing rules of this host could not be read", error) from error

    def learnt(self) -> Mapping[str, LearntMtu]:
        """Return what the kernel has learned about paths from ICMP errors, by address.  Raises HostError."""
        try:
            return read_learnt(self._kernel)
        except OSError as error:
            raise refusal("the routing tables of this host could not be read", error) from error

    def watch(self, *, is_ours: bool = True) -> Watch:
        """Return a socket that becomes readable when links, addresses, routes or rules change.

        With *is_ours*, changes of our own interface do not count, unless it differs from what was set up.
        """
        return Watch(self._kernel.port, self._index if is_ours else None, self._link.is_as_set_up)

    def forget(self) -> None:
        """Query the MTU of each device again: the network changed."""
        self._device_mtus.forget()

    def close(self) -> None:
        """Close the sockets to the kernel; what is set up stays."""
        self._kernel.close()
        self._reader.close()

    def _make_way(self, address: Address) -> None:
        """Remove those of our addresses that the kernel does not accept together with *address*.

        Our routes lose their source with them, and must be given one again.
        """
        for other in self._addresses.in_the_way_of(address):
            self._addresses.remove(other)
            self._routes.forget_source(other.interface.ip)

    def _remove_last_ipv4_addresses(self) -> None:
        """Remove all IPv4 addresses, and forget the IPv4 routes on the tun, which the kernel drops with the last
        address.
        """
        leaving = [address for address in self._addresses.ours if address.version == 4]
        for address in leaving:
            self._addresses.remove(address)
        if leaving and not any(address.version == 4 for address in self._addresses.read()):
            self._routes.forget_ipv4()
