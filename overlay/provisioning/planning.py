"""What a peer table requires of the host and of the forwarder: computed in a worker thread, while other tasks run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay import config
from overlay.host.netlink.routes import planned_routes
from overlay.host.ownership import number_of
from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.config import Node
    from overlay.host.netlink.routes import PlannedRoutes
    from overlay.host.plan import HostPlan
    from overlay.wire.addresses import Sockaddr

Endpoints = set[tuple[str, "Sockaddr"]]
"""Underlay addresses with the name of the peer each belongs to."""


@dataclass(frozen=True, slots=True)
class Planned:
    """How to set the host up, the reason for its MTU, and the largest packet that the underlay carries unfragmented, in
    bytes.

    *routes* are those of *plan* for the kernel, and *routed* has the prefixes that they lead into the tun.
    """

    plan: HostPlan
    mtu_reason: str
    room: int
    routes: PlannedRoutes
    routed: PrefixMap[bool]


def plan(node: Node, endpoints: Endpoints, paths: Mapping[str, int | None], interface: str) -> Planned:
    """Return what *node* requires of its host.

    *paths* has the MTUs of the paths to the hosts of *endpoints*; None means unknown.
    """
    room = config.plan_room(node, endpoints, paths)
    mtu, reason = room.size, room.reason
    if node.table.network.mtu is not None:
        mtu, reason = node.table.network.mtu, "as the peers file says"
    elif mtu < config.MINIMUM_MTU:
        mtu, reason = config.MINIMUM_MTU, f"{reason}, but at least {config.MINIMUM_MTU}"
    made = config.plan_host(node, mtu, endpoints, interface)
    routed = PrefixMap((prefix, True) for prefix in (*made.routes, *made.policy_routes))
    return Planned(made, reason, room.size, planned_routes(made, number_of(interface)), routed)
