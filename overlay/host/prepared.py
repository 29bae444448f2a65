"""A persistent tun device that root has prepared, for an agent without CAP_NET_ADMIN: compared with the plan, never
changed.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host.netlink.routing import Routing
from overlay.host.process import privileges
from overlay.host.process.privileges import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.host.netlink.fib import HostRoute, Link, RouteMatch
    from overlay.host.netlink.marked_rules import MarkedRule
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.host.netlink.routes import PlannedRoutes, RouteKind, RouteSet
    from overlay.host.netlink.watch import Watch
    from overlay.host.plan import DeviceState, HostPlan, IPAddress, IPInterface, IPNetwork
    from overlay.host.tun import Tun

# Ours
NAMED = 5  # prefixes or addresses in a sentence


def open_routing(device: Tun, *, is_bare: bool = False) -> Routing | Prepared:
    """Return an object that sets the routes of *device*, or only compares them if the agent may not or should not set
    them.
    """
    if is_bare:
        return Bare(device.name, device.index)
    if privileges.missing([Capability.NET_ADMIN]):
        return Prepared(device.name, device.index)
    return Routing(device.name, device.index, is_persistent=device.is_persistent)


class Prepared:
    """Takes the place of Routing: compares a plan with what exists, and reports what is missing.

    Only an interface that is down is refused, because it carries nothing.  Without an address or a route some traffic
    may still flow, such as that of containers, and an administrator who chose other routes may have a reason.
    """

    def __init__(self, interface: str, index: int) -> None:
        self._interface = interface
        self._routing = Routing(interface, index)
        self.lacking: str | None = None

    def fit(self, plan: HostPlan, fwmark: int | None) -> HostPlan:
        """Return *plan* as far as possible: an MTU no larger than the device's, and no mark except a configured one.

        A mark that the agent chose itself serves rules that nobody has set up here.
        """
        return replace(plan, mtu=min(plan.mtu, self._routing.device().mtu), fwmark=fwmark)

    def apply(self, plan: HostPlan, routes: PlannedRoutes | None = None) -> None:  # noqa: ARG002
        """Find what the device lacks for *plan*; `lacking` has the result.  Raises HostError if it is down."""
        device = self._routing.device()
        self.lacking = describe_lack(self._interface, plan, device)
        if not device.is_up:
            assert self.lacking is not None
            raise HostError(self.lacking) from OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))

    def read_routes(self) -> dict[RouteKind, RouteSet]:
        """Return the routes that this agent has made: none."""
        return {}

    def read_back(self) -> int:
        """Forget what is known about other devices; this agent has made nothing here."""
        return self.take_over(None)

    def take_over(self, routes: dict[RouteKind, RouteSet] | None) -> int:  # noqa: ARG002
        """Do the same as read_back()."""
        self._routing.forget()
        return 0

    @property
    def count(self) -> int:
        """How many routes and rules this agent has made: none."""
        return 0

    def changed(self, plan: HostPlan) -> list[str]:  # noqa: ARG002
        """Return nothing: `lacking` says how the interface differs from the plan."""
        return []

    def name_back(self) -> None:
        """Leave the name as it is: the administrator changed it."""

    def withdraw(self) -> None:
        """Leave everything as it is."""

    def marked_rules(self) -> list[MarkedRule]:
        """Return the result of Routing.marked_rules()."""
        return self._routing.marked_rules()

    def route_mtu(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return the result of Routing.route_mtu()."""
        return self._routing.route_mtu(address, fwmark)

    def route_index(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return the result of Routing.route_index()."""
        return self._routing.route_index(address, fwmark)

    def match(self, address: IPAddress, fwmark: int | None = None) -> RouteMatch | None:
        """Return the result of Routing.match()."""
        return self._routing.match(address, fwmark)

    def links(self) -> list[Link]:
        """Return the result of Routing.links()."""
        return self._routing.links()

    def host_routes(self) -> list[HostRoute]:
        """Return the result of Routing.host_routes()."""
        return self._routing.host_routes()

    def learnt(self) -> Mapping[str, LearntMtu]:
        """Return the result of Routing.learnt()."""
        return self._routing.learnt()

    def watch(self) -> Watch:
        """Return a socket that becomes readable when anything changes, our own interface included."""
        return self._routing.watch(is_ours=False)

    def close(self) -> None:
        """Close the socket to the kernel."""
        self._routing.close()


class Bare(Prepared):
    """Takes the place of Routing if another program, such as wg-quick, sets addresses, routes, MTU and rules."""

    def fit(self, plan: HostPlan, fwmark: int | None) -> HostPlan:
        """Return *plan* with the current MTU of the device, and no mark except one that was set."""
        return replace(plan, mtu=self._routing.device().mtu, fwmark=fwmark)

    def apply(self, plan: HostPlan, routes: PlannedRoutes | None = None) -> None:
        """Leave everything as it is, even a device that is down."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What a device lacks: the faults, as ends of sentences, and the commands with which root corrects them."""

    problems: list[str]
    commands: list[str]


def lack_of(interface: str, plan: HostPlan, device: DeviceState) -> Lack:
    """Return what *device* lacks for *plan*, apart from policy routes."""
    problems, commands, link = [], [], []
    if not device.is_up:
        problems.append("is down")
        link.append("up")
    if device.mtu > plan.mtu:
        problems.append(f"has an MTU of {device.mtu}, which is more than {plan.mtu}")
        link.append(f"mtu {plan.mtu}")
    if plan.mac is not None and device.mac != plan.mac:
        mac = plan.mac.hex(":")
        problems.append(f"has another Ethernet address than {mac}, which its peers know")
        link.append(f"address {mac}")
    if link:
        commands.append(f"ip link set {interface} {' '.join(link)}")
    addresses = [address for address in plan.addresses if address.ip not in device.addresses]
    if addresses:
        problems.append(f"has no address {_named([str(address.ip) for address in addresses])}")
        commands += [
            f"ip address add {_as_command(address, plan)} dev {interface}" for address in addresses[:NAMED]
        ]
    routes = [network for network in plan.routes if not _leads_in(network, device)]
    if routes:
        problems.append(f"has no route for {_named([str(network) for network in routes])}")
        commands += [f"ip route add {network} dev {interface}" for network in routes[:NAMED]]
    return Lack(problems, commands)


def describe_lack(interface: str, plan: HostPlan, device: DeviceState) -> str | None:
    """Return a sentence on what *device* lacks for *plan*, with the commands for root; None if it lacks nothing."""
    lack = lack_of(interface, plan, device)
    problems = lack.problems
    if not problems:
        return _describe_policy(interface, plan, device)
    listed = problems[0] if len(problems) == 1 else f"{', '.join(problems[:-1])} and {problems[-1]}"
    return (
        f"interface {interface} {listed}, and this agent has no CAP_NET_ADMIN to change that: "
        f"have root run `{' && '.join(lack.commands)}`"
    )


def _describe_policy(interface: str, plan: HostPlan, device: DeviceState) -> str | None:
    routes = [network for network in plan.policy_routes if not _leads_in(network, device)]
    if not routes:
        return None
    return (
        f"interface {interface} has no route for {_named([str(network) for network in routes])}, which contains "
        "endpoints of peers: routing it without capturing this node's own datagrams needs CAP_NET_ADMIN"
    )


def _as_command(address: IPInterface, plan: HostPlan) -> str:
    far = plan.far_end_of(address)
    return str(address) if far == address.ip else f"{address.ip} peer {far}"


def _leads_in(network: IPNetwork, device: DeviceState) -> bool:
    return any(
        network.supernet(new_prefix=length) in device.networks for length in range(network.prefixlen + 1)
    )


def _named(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
