"""The VRRP groups in which one node takes part, and which interfaces have an address on their link.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.wire.vrrp import OWNER_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.host.netlink.fib import Link
    from overlay.host.plan import IPAddress
    from peers.service import Service, Vrrp

# Ours
LEAST_PRIORITY = 1  # whatever is tracked: 0 means that a router resigns


@dataclass(frozen=True, slots=True)
class Membership:
    """The role of this node in the group *vrrp*: by *interface*, with *priority*, for *addresses*."""

    vrrp: Vrrp
    interface: str
    priority: int
    addresses: tuple[IPAddress, ...]

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.vrrp.name

    def of_version(self, version: int) -> tuple[IPAddress, ...]:
        """Return the addresses of one IP version, in the order of the file."""
        return tuple(each for each in self.addresses if each.version == version)


@dataclass(frozen=True, slots=True)
class Tracked:
    """The state of what groups track: which interfaces and services lack what they need, and the overlay."""

    interfaces_down: frozenset[str] = frozenset()
    services_without_quorum: frozenset[str] = frozenset()
    is_overlay_up: bool = True


def memberships_of(services: Iterable[Service], own: str) -> tuple[Membership, ...]:
    """Return the groups of *services* in which the node *own* is a director with an interface for them."""
    found: dict[str, tuple[Vrrp, tuple[str, ...], list[IPAddress]]] = {}
    for service in services:
        if service.vrrp is not None and service.directors is not None and own in service.directors:
            *_, addresses = found.setdefault(service.vrrp.name, (service.vrrp, service.directors, []))
            addresses += [each for each in service.addresses if each not in addresses]
    return tuple(
        Membership(vrrp, interface, vrrp.priority_of(own, directors), tuple(addresses))
        for vrrp, directors, addresses in found.values()
        if (interface := vrrp.interface_of(own)) is not None
    )


def effective_priority(member: Membership, tracked: Tracked) -> tuple[int, str]:
    """Return the priority given what is *tracked*, 0 if the node should not take part, and why it is not the full one.

    The owner of the addresses has them whatever is tracked, unless it should not take part.
    """
    vrrp = member.vrrp
    down = [each for each in vrrp.track_interfaces if each in tracked.interfaces_down]
    without = [each for each in vrrp.track_services if each in tracked.services_without_quorum]
    if down:
        reason = f"{down[0]} is down"
    elif vrrp.track_overlay and not tracked.is_overlay_up:
        reason = "the overlay is not up"
    elif without:
        reason = f"the service {without[0]} lacks its quorum"
    else:
        return member.priority, ""
    if not vrrp.track_weight:
        return 0, reason
    if member.priority == OWNER_PRIORITY:
        return member.priority, ""
    return max(LEAST_PRIORITY, member.priority - vrrp.track_weight), reason


def on_link(addresses: Iterable[IPAddress], links: Iterable[Link]) -> Mapping[int, frozenset[IPAddress]]:
    """Return, by index, the interfaces whose link has each of *addresses*: those with the longest prefix for it."""
    found: dict[int, set[IPAddress]] = {}
    links = list(links)
    for address in addresses:
        around = [
            link
            for link in links
            if link.network.version == address.version
            and link.network.prefixlen < address.max_prefixlen
            and address in link.network
        ]
        longest = max((link.network.prefixlen for link in around), default=0)
        for link in around:
            if link.network.prefixlen == longest:
                found.setdefault(link.index, set()).add(address)
    return {index: frozenset(each) for index, each in found.items()}
