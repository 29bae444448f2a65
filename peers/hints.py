"""What is allowed in a peer table and may yet be a mistake, in sentences."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from peers.containers import default_networks
from peers.encapsulation import has_ports, is_encrypted
from peers.errors import format_keys
from peers.hint import Hint, and_more, grouped, listed
from peers.prefixes import PrefixMap
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers.addresses import Prefix
    from peers.peer import Peer
    from peers.table import Route, Table


def warnings(table: Table) -> list[str]:
    """Return a sentence for everything in *table* that is valid but probably a mistake; one for many of a kind."""
    return [
        *grouped(_overlaps(table)),
        *grouped(_outsiders(table)),
        *grouped(_endpoints_inside(table)),
        *_unreachable_pairs(table),
        *grouped(_shared_endpoints(table)),
        *grouped(_ports_apart(table)),
        *_unencrypted(table),
        *grouped(_public_endpoints(table)),
        *default_networks(table),
        *(
            sentence
            for kind in table.sections
            for sentence in kind.warn(table.network, table.peers, table.sections)
        ),
    ]


def _overlaps(table: Table) -> Iterator[Hint]:
    """Yield one hint for each prefix that holds prefixes of other peers.

    Only the next wider prefix of each counts: the wider ones have a hint of their own.  A default route is expected
    to hold the others.
    """
    inner: defaultdict[Route, list[Route]] = defaultdict(list)
    for prefix, name in table.routes:
        wider = (route for route in table.owners.covering(prefix) if route[0].prefixlen < prefix.prefixlen)
        outer = next(wider, None)
        if outer is not None and outer[1] != name and outer[0].prefixlen > 0:
            inner[outer].append((prefix, name))
    for (prefix, name), routes in inner.items():
        yield Hint(
            f"{prefix} of {_named(name)}",
            f"{prefix} of {_named(name)} holds {routes[0][0]} of {_named(routes[0][1])}"
            f"{and_more(len(routes) - 1)}; the longer prefix wins",
            "prefixes hold longer ones of other peers, which win",
        )


def _outsiders(table: Table) -> Iterator[Hint]:
    """Yield one hint for each peer with prefixes outside the network's.

    Where two peers are the ends of a link, and the network's prefix is that of the link alone, their LANs lie outside.
    """
    carried = PrefixMap((prefix, True) for prefix in table.network.prefixes)
    lans = [prefix for prefix, _ in table.routes if prefix.num_addresses > 1]
    if table.network.point_to_point and all(next(carried.covering(prefix), None) is None for prefix in lans):
        return
    outside: defaultdict[str, list[Prefix]] = defaultdict(list)
    for prefix, name in table.routes:
        if next(carried.covering(prefix), None) is None:
            outside[name].append(prefix)
    network = ", ".join(str(prefix) for prefix in table.network.prefixes)
    for name, prefixes in outside.items():
        yield Hint(
            _named(name),
            f"{prefixes[0]} of {_named(name)}{and_more(len(prefixes) - 1)} "
            f"{'lies' if len(prefixes) == 1 else 'lie'} outside the network prefix {network}; "
            f"each host gets a route for {'it' if len(prefixes) == 1 else 'each'}",
            f"peers have prefixes outside the network prefix {network}, and each host gets routes for them",
        )


def _endpoints_inside(table: Table) -> Iterator[Hint]:
    for peer in table.peers.values():
        address = None if peer.endpoint is None else peer.endpoint.address
        found = None if address is None else table.owners.match(address)
        if found is not None and found[1] == peer.name:
            yield Hint(
                _named(peer.name),
                f"{format_keys(('peers', peer.name, 'endpoint'))} {address} lies inside its own subnet "
                f"{found[0]}; the tunnel's own datagrams are routed past it by policy rules",
                "peers have their endpoint inside a subnet of their own, past which the tunnel's datagrams are routed",
            )


def _unreachable_pairs(table: Table) -> list[str]:
    """Return one sentence about peers none of which can call another, where there are two or more."""
    silent = [peer.name for peer in table.peers.values() if peer.endpoint is None]
    if len(silent) < 2:
        return []
    sentence = (
        f"{len(silent)} peers have no endpoint, and can never connect to each other: {listed(map(_named, silent))}; "
        "give an endpoint to those that others can reach"
    )
    if len(silent) == len(table.peers):
        sentence = (
            "no peer has an endpoint, so no tunnel can be set up: "
            "write the address of at least one host as its endpoint"
        )
    return [sentence]


def _shared_endpoints(table: Table) -> Iterator[Hint]:
    holders: defaultdict[tuple[str, int], list[Peer]] = defaultdict(list)
    for peer in table.peers.values():
        if peer.endpoint is not None:
            host = str(peer.endpoint.address or peer.endpoint.host.lower().removesuffix("."))
            holders[host, peer.endpoint.port].append(peer)
    for peers in holders.values():
        if len(peers) > 1:
            names = [_named(peer.name) for peer in peers]
            yield Hint(
                str(peers[0].endpoint),
                f"{listed(names)} have the same endpoint {peers[0].endpoint}, where only one of them can be: "
                "behind one address each needs a port of its own",
                "endpoints are those of two peers or more, and only one can be there",
            )


def _ports_apart(table: Table) -> Iterator[Hint]:
    """Yield one hint for each endpoint whose port is not the peer's own, without a `listen_port` that explains it.

    Behind a NAT that is right; then `listen_port` says what the peer itself has.
    """
    for peer in table.peers.values():
        encapsulation = own_encapsulation(table.network, peer)
        if peer.endpoint is None or peer.listen_port is not None or not has_ports(encapsulation):
            continue
        listening = table.listen_port(peer)
        if peer.endpoint.port != listening:
            name = "the encrypted tunnels" if is_encrypted(encapsulation) else encapsulation
            yield Hint(
                _named(peer.name),
                f"{format_keys(('peers', peer.name, 'endpoint'))} has the port {peer.endpoint.port}, but {peer.name} "
                f"listens on {listening} for {name}: write that port, or, where a NAT leads one to the other, "
                f"listen_port = {listening}",
                "peers have an endpoint with another port than they listen on, which is right only behind a NAT",
            )


def _unencrypted(table: Table) -> list[str]:
    """Return one sentence on the peers whose traffic is not encrypted, if there are any."""
    clear = _in_the_clear(table)
    by = " or ".join(dict.fromkeys(clear.values()))
    if clear and len(clear) == len(table.peers):
        return [f"nothing is encrypted: the encapsulation of all peers is {by}"]
    if clear:
        first = next(iter(clear))
        more = and_more(len(clear) - 1)
        return [f"traffic with {_named(first)}{more} is not encrypted: the encapsulation is {by}"]
    return []


def _public_endpoints(table: Table) -> Iterator[Hint]:
    for name, encapsulation in _in_the_clear(table).items():
        endpoint = table.peers[name].endpoint
        address = None if endpoint is None else endpoint.address
        if address is not None and address.is_global:
            yield Hint(
                _named(name),
                f"{format_keys(('peers', name, 'endpoint'))} {address} is a public address, and {encapsulation} "
                "encrypts nothing: everybody on the way can read and change what is sent",
                "peers have public addresses and an encapsulation that encrypts nothing: everybody on the way can "
                "read and change what is sent",
            )


def _in_the_clear(table: Table) -> dict[str, str]:
    """Return the encapsulation of each peer that is not encrypted, by its name."""
    own = {name: own_encapsulation(table.network, peer) for name, peer in table.peers.items()}
    return {name: encapsulation for name, encapsulation in own.items() if not is_encrypted(encapsulation)}


def _named(name: str) -> str:
    return format_keys(("peers", name))
