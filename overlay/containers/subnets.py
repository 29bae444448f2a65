"""Which subnets of a host are for containers: those behind it that none of its links has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from overlay.containers.addresses import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Offer:
    """Where addresses for containers come from.  *kept* are addresses that are already in use.

    *named* are servers of services by the peers file: they are given only to containers that ask for them.
    *taken* are subnets of the host that one of its links has, such as a Docker bridge or a LAN.
    """

    subnets: tuple[IPNetwork, ...]
    kept: frozenset[IPAddress] = frozenset()
    named: frozenset[IPAddress] = frozenset()
    taken: tuple[IPNetwork, ...] = ()


def offer(
    subnets: Iterable[IPNetwork],
    links: Collection[IPNetwork],
    others: Iterable[IPAddress],
    servers: Iterable[IPAddress] = (),
) -> Offer:
    """Return the addresses for containers of a host with *subnets* behind it.

    *links* are the networks that it is on.  *others* are addresses of hosts and services, which containers cannot get;
    *servers* are addresses of servers here.
    """
    free: list[IPNetwork] = []
    taken: list[IPNetwork] = []
    for subnet in subnets:
        is_on_link = any(link.version == subnet.version and link.overlaps(subnet) for link in links)
        (taken if is_on_link else free).append(subnet)
    kept, named = (
        frozenset(each for each in addresses if any(each in subnet for subnet in free))
        for addresses in (others, servers)
    )
    return Offer(tuple(free), kept, named, tuple(taken))
