"""Routes of the host itself that take packets meant for the tunnel, or lead other packets into it."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host.netlink.rtnetlink import RT_TABLE_MAIN
from peers.addresses import host_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.host.netlink.fib import HostRoute, RouteMatch
    from overlay.host.plan import IPAddress, IPNetwork

# Ours
QUESTIONS = 64  # prefixes of peers, and endpoints, about which the kernel is asked, at up to 0.1 ms each
SAMPLES = 3  # addresses of one prefix: the first may be the host's own
NAMED = 3  # prefixes in a sentence
# Whose network an interface with that name is, and how to give it another.
MAKERS = (
    ("docker0", 'give it another network with "bip" in /etc/docker/daemon.json'),
    ("br-", "remove that network with `docker network rm` and create it again with another --subnet"),
    ("podman", "remove that network with `podman network rm` and create it again with another --subnet"),
    ("cni-podman", "remove that network with `podman network rm` and create it again with another --subnet"),
)


def check_routes(facts: Facts) -> Iterator[Finding]:
    """Yield each route of the host that takes packets for peers, or for a part of a peer's prefix, and each of its
    gateways that lies in the tunnel.

    A network of the host that is part of a peer's larger one outside the overlay's prefixes should take precedence, and
    is not reported.  Other checks report what a prepared device lacks.  A device that is down has no routes.
    """
    is_down = (
        facts.interfaces is not None and facts.is_set_up and not facts.interfaces.is_up(facts.device.name)
    )
    if facts.lacking is None and not is_down:
        yield from _taken(facts)
        yield from _lost_gateways(facts)


def _taken(facts: Facts) -> Iterator[Finding]:
    found: dict[RouteMatch, list[tuple[IPNetwork, str]]] = {}
    refused: list[IPAddress] = []
    for prefix, name in islice(_led(facts), QUESTIONS):
        answer = _ask(facts, prefix, name)
        if answer is None:
            continue
        address, route = answer
        if route is None:
            if not facts.is_set_up or facts.routes.route_index(address) is not None:
                continue  # there is no route yet, or it was corrected meanwhile
            refused.append(address)
            yield Finding(
                "route_refused",
                f"a route of this host rejects packets to {prefix} of {name}",
                f"find it with `ip route show match {address}` and `ip rule`, and remove it",
                name,
            )
        elif _is_taker(facts, route, prefix):
            found.setdefault(route, []).append((prefix, name))
    for route, taken in found.items():
        yield from _describe(route, taken)
    told = {route.network for route in found}
    for part, prefix, name in islice(_parts(facts), QUESTIONS):
        is_told = part.network in told or any(address in part.network for address in refused)
        if not is_told and _applies(facts, part, name):
            yield _describe_part(part, prefix, name)


def _parts(facts: Facts) -> Iterator[tuple[HostRoute, IPNetwork, str]]:
    """Yield each route of the host to a part of a peer's prefix that is routed into the tunnel, with the prefix."""
    node = facts.node
    for route in facts.routes.host_routes() if not node.is_tap or facts.plan.routes else ():
        prefix, name = next(node.table.owners.covering(route.network), (route.network, None))
        if name not in {None, node.own.name} and prefix != route.network and _is_carried(facts, prefix):
            assert name is not None
            yield route, prefix, name


def _applies(facts: Facts, route: HostRoute, name: str) -> bool:
    """Return whether packets to a peer take *route*: not if it is down, or in a table that no rule leads to."""
    answer = _ask(facts, route.network, name)
    if answer is None:
        return False
    taken = answer[1]
    if taken is None or route.rejects is not None:
        return taken is None and route.rejects is not None
    return not taken.is_local and (taken.network, taken.table) == (route.network, route.table)


def _describe_part(route: HostRoute, prefix: IPNetwork, name: str) -> Finding:
    network, table = route.network, "" if route.table == RT_TABLE_MAIN else f" table {route.table}"
    part = f"packets to that part of {prefix} of {name} do not go into the tunnel"
    if route.rejects is not None:
        return Finding(
            "route_refused",
            f"a route of this host rejects packets to {network}, which is part of {prefix} of {name}",
            f"unless that is meant, run `ip route delete {route.rejects} {network}{table}`",
            name,
        )
    device = _name(route.index) if route.index else None
    if device is not None and route.is_kernels and route.gateway is None:
        return Finding(
            "route_taken", f"{device} of this host has {network}, so {part}", _renumber(device), name
        )
    leads, by = "several gateways", ""
    if device is not None and route.gateway is None:
        leads, by = device, f" dev {device}"
    elif device is not None:
        leads, by = f"{route.gateway} on {device}", f" {_via(route.gateway, network)} dev {device}"
    return Finding(
        "route_taken",
        f"this host has its own route for {network}, by {leads}, so {part}",
        f"unless that is meant, run `ip route delete {network}{by}{table}`",
        name,
    )


def _led(facts: Facts) -> Iterator[tuple[IPNetwork, str]]:
    """Yield the prefixes of other peers that should lead into the tunnel, with the name of the peer."""
    node = facts.node
    for peer in node.others:
        addresses = (host_prefix(address) for address in peer.addresses)
        alone = [each for each in addresses if not any(_is_within(each, subnet) for subnet in peer.subnets)]
        for prefix in (*peer.subnets, *alone):
            if not node.is_tap or (facts.plan.routes and _is_carried(facts, prefix)):
                yield prefix, peer.name


def _is_within(prefix: IPNetwork, other: IPNetwork) -> bool:
    return prefix.prefixlen >= other.prefixlen and prefix.network_address in other


def _ask(facts: Facts, prefix: IPNetwork, name: str) -> tuple[IPAddress, RouteMatch | None] | None:
    """Return an address of *prefix* that is not in a longer prefix, and the route to it; None if there is no such
    address.
    """
    first = 1 if prefix.num_addresses > SAMPLES else 0
    answer = None
    for offset in range(first, min(first + SAMPLES, prefix.num_addresses)):
        address = prefix.network_address + offset
        if facts.node.table.owners.lookup(address) != name:
            continue
        route = facts.routes.match(address)
        answer = address, route
        if route is None or not route.is_local:
            break
    return answer


def _is_taker(facts: Facts, route: RouteMatch, prefix: IPNetwork) -> bool:
    """Return whether *route* takes packets that should go into the tunnel by a route for *prefix* or the overlay's."""
    if route.index == facts.device.index:
        return False
    if route.network.version != prefix.version:
        return False
    carrier = _carrier(facts, prefix)
    if route.table == RT_TABLE_MAIN and route.network.prefixlen < (carrier or prefix).prefixlen:
        return False  # our route was removed, and is restored at once
    return carrier is not None or route.is_local or route.network.prefixlen <= prefix.prefixlen


def _carrier(facts: Facts, prefix: IPNetwork) -> IPNetwork | None:
    """Return the overlay's prefix that contains *prefix* and whose route leads to it; None if it has its own."""
    return next((each for each in facts.node.table.network.prefixes if _is_within(prefix, each)), None)


def _is_carried(facts: Facts, prefix: IPNetwork) -> bool:
    return _carrier(facts, prefix) is not None


def _describe(route: RouteMatch, taken: list[tuple[IPNetwork, str]]) -> Iterator[Finding]:
    device = _name(route.index)
    listed = ", ".join(f"{prefix} of {name}" for prefix, name in taken[:NAMED])
    more = f" and {len(taken) - NAMED} more" if len(taken) > NAMED else ""
    end = f"packets to {listed}{more} do not go into the tunnel"
    peer = taken[0][1] if len({name for _, name in taken}) == 1 else None
    if route.is_local:
        yield Finding(
            "address_taken",
            f"this host has addresses of its own in the network of a peer, {route.network} on {device}, so {end}",
            _renumber(device),
            peer,
        )
    elif route.table != RT_TABLE_MAIN:
        yield Finding(
            "route_taken",
            f"a routing rule of this host leads to {device} by table {route.table}, so {end}",
            f"see `ip rule` and `ip route show table {route.table}`, and remove the rule or the route",
            peer,
        )
    elif route.gateway is None:
        yield Finding(
            "route_taken", f"{device} of this host has {route.network}, so {end}", _renumber(device), peer
        )
    else:
        via = _via(route.gateway, route.network)
        yield Finding(
            "route_taken",
            f"this host has its own route for {route.network}, by {route.gateway} on {device}, so {end}",
            f"unless that is meant, run `ip route delete {route.network} {via} dev {device}`",
            peer,
        )


def _via(gateway: IPAddress | None, network: IPNetwork) -> str:
    """Return the gateway of a route to *network* in the form of ``ip route``."""
    assert gateway is not None
    return f"via {gateway}" if gateway.version == network.version else f"via inet6 {gateway}"


def _renumber(device: str) -> str:
    for name, remedy in MAKERS:
        if device.startswith(name):
            return remedy
    return (
        f"unless that is meant, give {device} or the peer another network, or remove the prefix from the peers file; "
        f"`ip address show dev {device}` shows what it has"
    )


def _lost_gateways(facts: Facts) -> Iterator[Finding]:
    """Yield each gateway on the way to an endpoint that is itself routed into the tunnel."""
    hosts = {sockaddr[0].partition("%")[0] for _, sockaddr in islice(facts.endpoints, QUESTIONS)}
    ways = (facts.routes.match(ip_address(host), facts.plan.fwmark) for host in hosts)
    gateways = {(way.gateway, way.index) for way in ways if way is not None and way.gateway is not None}
    for gateway, index in sorted(gateways, key=str):
        if gateway.is_link_local or facts.routes.route_index(gateway) != facts.device.index:
            continue
        device, owner = _name(index), facts.node.table.owners.match(gateway)
        into = f"the tunnel with {owner[1]}, which has {owner[0]}" if owner is not None else "the tunnel"
        yield Finding(
            "gateway_taken",
            f"the gateway {gateway} of this host lies in {into}, so packets to the gateway itself, such as to its "
            f"DNS, do not reach it",
            f"run `ip route add {gateway} dev {device}`",
        )


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # gone meanwhile
        return f"interface {index}"
