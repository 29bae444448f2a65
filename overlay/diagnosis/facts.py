"""The facts about a host that checks use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from overlay.config import Node
    from overlay.host.firewall.rules import Firewall
    from overlay.host.netlink.fib import HostRoute, Link, RouteMatch
    from overlay.host.netlink.marked_rules import MarkedRule
    from overlay.host.netlink.route_lookup import RouteQuery, RouteResult
    from overlay.host.plan import HostPlan, IPAddress
    from overlay.host.tun import Offloads
    from overlay.wire.addresses import Sockaddr


class Routes(Protocol):
    """The kernel's answers about routes."""

    def route_index(self, address: IPAddress, fwmark: int | None = None) -> int | None:
        """Return the index of the interface by which packets to *address* leave; None if there is none."""

    def match(self, address: IPAddress, fwmark: int | None = None) -> RouteMatch | None:
        """Return the route that packets to *address* take; None if there is none."""

    def links(self) -> list[Link]:
        """Return the networks that this host is on, except by its tun.  Raises HostError."""

    def host_routes(self) -> list[HostRoute]:
        """Return the routes of this host that no agent made, except those by its tun.  Raises HostError."""

    def marked_rules(self) -> list[MarkedRule]:
        """Return the routing rules of others that depend on firewall marks.  Raises HostError."""


class Interfaces(Protocol):
    """The kernel's answers about interfaces."""

    def is_up(self, name: str) -> bool:
        """Return whether the interface exists and is up."""

    def xdp_programs(self, name: str) -> list[int]:
        """Return the numbers of the XDP programs that are attached to the interface."""

    def offloads(self, name: str) -> Mapping[str, bool]:
        """Return which offloads are on, by the names of ``ethtool -K``; unknown ones are left out."""


class Device(Protocol):
    """The node's tun device, or the planned one."""

    @property
    def name(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def offloads(self) -> Offloads: ...
    @property
    def is_persistent(self) -> bool: ...


class Socket(Protocol):
    """A socket of the underlay, or a planned one."""

    @property
    def port(self) -> int: ...
    @property
    def can_segment(self) -> bool: ...
    @property
    def can_coalesce(self) -> bool: ...
    @property
    def receive_buffer(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """A node on its host: what it needs, what it has set up, and how to find out the rest.

    *endpoints* are the known underlay addresses of the peers, with their names.  *lacking* says what a device that root
    has prepared lacks.  *read* returns a setting below /proc/sys/net, None if it does not exist.  *errors_prevented*
    are the IP protocols for which errors of the kernel's own tunnels are blocked.  *firewall* is None until it is read.
    If no agent runs, nothing is set up: *is_set_up* is false, and the device is a planned one.  *room* is the largest
    packet that the underlay carries whole, None if that is not known.  *way* is the kernel's answer about one packet,
    including one that it forwards.
    """

    node: Node
    plan: HostPlan
    device: Device
    udp: Sequence[Socket]
    endpoints: frozenset[tuple[str, Sockaddr]]
    routes: Routes
    read: Callable[[str], int | None]
    is_icmp_refused: bool = False
    lacking: str | None = None
    errors_prevented: frozenset[int] = frozenset()
    firewall: Firewall | None = None
    is_set_up: bool = True
    room: int | None = None
    interfaces: Interfaces | None = None
    way: Callable[[RouteQuery], RouteResult] | None = None
