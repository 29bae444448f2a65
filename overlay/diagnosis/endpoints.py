"""Endpoints to which nothing can be sent: only the tunnel leads there, or no route does."""

from __future__ import annotations

import heapq
import socket
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.wire.addresses import Sockaddr
    from peers.addresses import Address
    from peers.prefixes import PrefixMap

# Ours
QUESTIONS = 64  # endpoints whose routes are queried
NAMED = 5  # endpoints in findings; what is wrong with one is often wrong with all


def check_endpoints(facts: Facts) -> Iterator[Finding]:
    """Yield the peers whose endpoint is inside their own tunnel, so that nothing can be sent to them."""
    yield from islice(_inside(facts), NAMED)


def check_ways(facts: Facts) -> Iterator[Finding]:
    """Yield the peers without a route to any of their addresses; a name may have one of a family that this host lacks.

    This is only for users who ask what is wrong: that a host is offline is not news to it.
    """
    yield from islice(_without_route(facts), NAMED)


def _without_route(facts: Facts) -> Iterator[Finding]:
    known: dict[str, list[Sockaddr]] = {}
    for name, sockaddr in heapq.nsmallest(QUESTIONS, facts.endpoints):
        known.setdefault(name, []).append(sockaddr)
    for name, sockaddrs in known.items():
        addresses = [_host(each) for each in sockaddrs]
        inside = any(_place(facts, name, each) is not None for each in addresses)
        ways = {facts.routes.route_index(each, facts.plan.fwmark) for each in addresses}
        if ways == {facts.device.index} and not any(map(facts.node.table.owners.lookup, addresses)):
            yield Finding(
                "endpoint_inside",
                f"a route of this host leads to {addresses[0]}, the endpoint of {name}, by {facts.device.name}, but no "
                "peer has that address, so nothing can be sent there",
                f"find it with `ip route show match {addresses[0]}` and `ip rule`, and remove it",
                name,
            )
        if inside or ways != {None}:
            continue
        here = [each for each in sockaddrs if _is_of_this_host(facts, _host(each))]
        if not here:
            yield Finding(
                "no_route",
                f"no route of this host leads to {addresses[0]}, the endpoint of {name}",
                f"see `ip route get {addresses[0]}`: an interface may be down, or a default route missing",
                name,
            )
        elif any(
            each[1] in {0, *(socket.port for socket in facts.udp)} for each in here
        ):  # 0: the encapsulation has no ports
            yield Finding(
                "endpoint_here",
                f"{_host(here[0])}, the endpoint of {name}, is an address of this host, which is {facts.node.own.name}",
                f"correct the endpoint of {name} in the peers file, or, if this host is {name}, give it the private "
                f"key of {name}",
                name,
            )


def _host(sockaddr: Sockaddr) -> Address:
    return ip_address(sockaddr[0].partition("%")[0])


def _is_of_this_host(facts: Facts, address: Address) -> bool:
    """Return whether this host has *address*.  Another agent may run here, on another port."""
    route = facts.routes.match(address, facts.plan.fwmark)
    return route is not None and route.is_local


def _inside(facts: Facts) -> Iterator[Finding]:
    for name, sockaddr in _held(facts.node.table.owners, facts.endpoints):
        address = _host(sockaddr)
        where = _place(facts, name, address)
        if where is None:
            continue
        # A host that is on that network itself, or has a better route, does not use the tunnel to send there.
        if facts.routes.route_index(address, facts.plan.fwmark) in {None, facts.device.index}:
            yield Finding(
                "endpoint_inside",
                f"the endpoint of {name}, {address}, lies in {where}, and no route but the tunnel leads there",
                "correct the endpoint in the peers file, or the address of its name",
                name,
            )


@lru_cache(1)
def _held(owners: PrefixMap[str], endpoints: frozenset[tuple[str, Sockaddr]]) -> list[tuple[str, Sockaddr]]:
    """Return those of *endpoints* that lie in a subnet of any peer, sorted: hardly any, even of ten thousand.

    For ten thousand this takes 20 ms, and the host is examined again and again while they do not change.
    """
    return sorted(each for each in endpoints if owners.lookup_number(*_number(each[1])) is not None)


def _number(sockaddr: Sockaddr) -> tuple[int, int]:
    """Return the IP version of a socket address, and its host as a number."""
    if len(sockaddr) == 2:
        return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, sockaddr[0]), "big")
    packed = socket.inet_pton(socket.AF_INET6, sockaddr[0].partition("%")[0])
    return 6, int.from_bytes(packed, "big")


def _place(facts: Facts, name: str, address: Address) -> str | None:
    """Return the network with *address* that leads into the tunnel of the peer *name*; None if there is none."""
    peer = facts.node.table.peers.get(name)
    if peer is None:
        return None
    inside = next(
        (prefix for prefix in peer.subnets if prefix.version == address.version and address in prefix), None
    )
    return None if inside is None else f"its own subnet {inside}"
