"""The peer table: one consistent snapshot of who is in the overlay, and what changed between two of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from peers.addresses import IPV6_MINIMUM_MTU, Prefix, host_prefix
from peers.encapsulation import FACTS, PORTS, WIREGUARD, has_ports, is_encrypted, resolve
from peers.errors import KeyProblem, format_keys
from peers.gre import check_gre
from peers.mac import format_mac
from peers.peer import TAP, Endpoint
from peers.prefixes import PrefixMap, place_of
from peers.services.sections import services_of
from peers.tunnel import encapsulation_between, identifier_between, own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from peers.errors import Keys
    from peers.kind import Sections
    from peers.peer import Network, Peer
    from peers.service import Service

Route: TypeAlias = tuple[Prefix, str]
"""A prefix and the name of the peer that it leads to."""


@dataclass(frozen=True, slots=True)
class Table:
    """The overlay as one host sees it.  Every table that exists is consistent.

    Making one raises KeyProblem for peers that contradict each other: a public key, prefix or address of two,
    an endpoint that could only be reached through its own tunnel, an MTU too small for IPv6, no peers; an
    encrypted tunnel without a key, a peer in the clear without an endpoint, two keys for one GRE tunnel, what the
    encapsulations in use have no place for, two peers that nothing would tell apart; and for what the kinds of the
    other *sections* refuse.

    *routes* holds each prefix once, in the order of the peers: the subnets of all, then a host route for each
    address of a peer that its own subnets do not already win by longest match, so that an address of a peer
    always leads to that peer.  *owners* finds them by the longest match; *outside* are those that none of the
    network's prefixes holds.  *services* are by their names, with the checks and the VRRP that they name.
    """

    network: Network
    peers: Mapping[str, Peer]
    sections: Sections = field(default_factory=dict)
    services: Mapping[str, Service] = field(init=False, repr=False, compare=False)
    routes: tuple[Route, ...] = field(init=False, repr=False, compare=False)
    owners: PrefixMap[str] = field(init=False, repr=False, compare=False)
    outside: tuple[Route, ...] = field(init=False, repr=False, compare=False)
    _by_public_key: Mapping[bytes, Peer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        peers = MappingProxyType(dict(self.peers))
        assert all(name == peer.name for name, peer in peers.items())
        if not peers:
            raise KeyProblem(("peers",), "has no peers; write a [peers.NAME] table for each host")
        _check_encapsulations(self.network, peers.values())
        _check_links(self.network, peers.values())
        by_public_key = _index_public_keys(peers.values())
        subnets, owners = _collect_subnets(peers.values())
        hosts = _add_host_routes(self.network, peers.values(), owners)
        _check_mtu(self.network, [*subnets, *hosts])
        _check_endpoints(self.network, peers.values(), owners)
        sections = MappingProxyType({kind: found for kind, found in self.sections.items() if found})
        for kind in sections:
            kind.check(self.network, peers, sections)
        object.__setattr__(self, "peers", peers)
        object.__setattr__(self, "sections", sections)
        object.__setattr__(self, "services", MappingProxyType(services_of(sections)))
        object.__setattr__(self, "routes", (*subnets, *hosts))
        object.__setattr__(self, "owners", owners)
        object.__setattr__(self, "outside", tuple(_find_outside(self.network, peers.values(), hosts)))
        object.__setattr__(self, "_by_public_key", by_public_key)

    def find_by_public_key(self, public_key: bytes) -> Peer | None:
        """Return the peer whose key is the 32 bytes *public_key*; None if there is none."""
        return self._by_public_key.get(public_key)

    def listen_port(self, peer: Peer, encapsulation: str | None = None) -> int:
        """Return the UDP port that *peer*'s own sockets bind to; its endpoint may name another, a NAT's.

        ``listen_port`` is meant for the peer's own encapsulation, which is also the one that None stands for.
        """
        own = own_encapsulation(self.network, peer)
        if peer.listen_port is not None and encapsulation in {None, own}:
            return peer.listen_port
        return self.network.port_for(encapsulation or own)

    def encapsulation_between(self, a: Peer, b: Peer) -> str:
        """Return the encapsulation of the tunnel between *a* and *b*, which is the same for *b* and *a*."""
        return encapsulation_between(self.network, a, b)

    def identifier_between(self, a: Peer, b: Peer) -> int | None:
        """Return the GRE key or VXLAN network identifier between *a* and *b*; None where there is none."""
        return identifier_between(self.network, a, b)

    def endpoint_for(self, peer: Peer, encapsulation: str) -> Endpoint | None:
        """Return the endpoint of *peer* for *encapsulation*: the configured port is for the peer's own
        encapsulation.
        """
        is_own = encapsulation == own_encapsulation(self.network, peer)
        if peer.endpoint is None or (is_own and has_ports(encapsulation)):
            return peer.endpoint
        return Endpoint(peer.endpoint.host, self.network.port_for(encapsulation))


def _index_public_keys(peers: Iterable[Peer]) -> dict[bytes, Peer]:
    index: dict[bytes, Peer] = {}
    for peer in peers:
        if peer.public_key is None:
            continue
        earlier = index.setdefault(peer.public_key, peer)
        if earlier is not peer:
            raise KeyProblem(
                ("peers", peer.name, "public_key"),
                f"is also the public key of {_named(earlier.name)}; each peer needs a key pair of its own",
            )
    return index


def _check_encapsulations(network: Network, peers: Collection[Peer]) -> None:
    holders: dict[int, str] = {}
    for name, port in PORTS.items():
        number = network.port_for(name)
        holder = holders.setdefault(number, name)
        if holder != name:
            raise KeyProblem(("network", port.key), f"{number} is also the port of {holder}; write another")
    named = Counter(peer.encapsulation for peer in peers)
    for peer in peers:
        if peer.public_key is None and _has_encrypted_tunnel(network, peer, named):
            raise KeyProblem(
                ("peers", peer.name, "public_key"),
                "is missing; write what overlay pubkey prints on that host",
            )
        encapsulation = own_encapsulation(network, peer)
        if is_encrypted(encapsulation):
            if peer.sources:
                raise KeyProblem(
                    ("peers", peer.name, "sources"),
                    "is for packets in the clear, and this peer's are encrypted; write them as subnets",
                )
            continue
        if peer.endpoint is None:
            raise KeyProblem(
                ("peers", peer.name, "endpoint"),
                f"is missing; {encapsulation} knows a peer by the address that its datagrams come from",
            )
        if peer.preshared_key_file is not None:
            raise KeyProblem(
                ("peers", peer.name, "preshared_key_file"),
                f"has no effect, because {encapsulation} encrypts nothing; remove it, or write encapsulation = "
                f'"{WIREGUARD}"',
            )


def _has_encrypted_tunnel(network: Network, peer: Peer, named: Counter[str | None]) -> bool:
    """Return whether *peer* shares an encrypted tunnel with another, given how many name which encapsulation."""
    others = named - Counter([peer.encapsulation])
    # Alone, a peer waits for such as name none.
    return any(
        is_encrypted(resolve(peer.encapsulation, other, network.encapsulation)) for other in others or [None]
    )


def _check_links(network: Network, peers: Collection[Peer]) -> None:
    """Refuse what the encapsulations in use, or the kind of the device, have no place for."""
    in_use = {own_encapsulation(network, peer) for peer in peers} | {network.encapsulation}
    check_gre(network, peers, in_use)
    if network.device == TAP:
        for peer in peers:
            encapsulation = own_encapsulation(network, peer)
            if not FACTS[encapsulation].carries_frames:
                place: Keys = ("peers", peer.name) if peer.encapsulation else ("network",)
                others = [name for name, each in FACTS.items() if each.carries_frames]
                raise KeyProblem(
                    (*place, "encapsulation"),
                    f"is {encapsulation}, which carries no Ethernet frames; write "
                    f'{", ".join(others[:-1])} or {others[-1]}, or device = "tun"',
                )
        _check_hosts(network, peers)
    if network.point_to_point and (len(peers) != 2 or network.device == TAP):
        found = f"there are {len(peers)} peers" if len(peers) > 1 else "there is only one"
        found = "the device is a tap" if network.device == TAP else found
        raise KeyProblem(
            ("network", "point_to_point"), f"is for a tun between two peers, and {found}; remove it"
        )
    holders: dict[bytes, Peer] = {}
    for peer in peers:
        for index, mac in enumerate(peer.macs):
            holder = holders.setdefault(mac, peer)
            if holder is not peer:
                raise KeyProblem(
                    ("peers", peer.name, "mac", index),
                    f"{format_mac(mac)} is also at {_named(holder.name)}; remove it from one of them",
                )


def _check_hosts(network: Network, peers: Collection[Peer]) -> None:
    """Refuse two peers at one host whom a third has tunnels in the clear to, by the same encapsulation.

    With a tap only their address tells them apart.
    """
    named = Counter(peer.encapsulation for peer in peers)
    found: defaultdict[str, dict[str | None, Peer]] = defaultdict(dict)
    for peer in peers:
        if peer.endpoint is None:
            continue
        at_host = found[str(peer.endpoint.address or peer.endpoint.host.lower())]
        for other, earlier in at_host.items():
            thirds = named - Counter([peer.encapsulation, other])
            if shared := _shared_in_the_clear(network, peer.encapsulation, other, thirds):
                raise KeyProblem(
                    ("peers", peer.name, "endpoint"),
                    f"is at the same host as that of {_named(earlier.name)}, "
                    f"but with a tap {shared} tells peers apart by "
                    f'their addresses alone; give each its own, or write encapsulation = "{WIREGUARD}" at one of them',
                )
        at_host.setdefault(peer.encapsulation, peer)


def _shared_in_the_clear(
    network: Network, one: str | None, other: str | None, thirds: Iterable[str | None]
) -> str | None:
    """Return the encapsulation in the clear that two peers, which name *one* and *other*,
    both have with one of *thirds*.
    """
    for third in thirds:
        found = {resolve(each, third, network.encapsulation) for each in (one, other)}
        if len(found) == 1 and not is_encrypted(shared := found.pop()):
            return shared
    return None


def _collect_subnets(peers: Iterable[Peer]) -> tuple[list[Route], PrefixMap[str]]:
    routes: list[Route] = []
    owners: PrefixMap[str] = PrefixMap()
    for peer in peers:
        name = peer.name
        for index, place in enumerate(peer.places):
            earlier = owners.insert_at(place, name)
            if earlier is None:
                continue
            subnet = peer.subnets[index]
            if earlier == name:
                raise KeyProblem(("peers", name, "subnets", index), f"{subnet} is here twice; write it once")
            raise KeyProblem(
                ("peers", name, "subnets", index),
                f"{subnet} is also a subnet of {_named(earlier)}; a prefix leads to one peer, "
                "so remove it from one of them",
            )
        routes += peer.routes
    return routes, owners


def _add_host_routes(network: Network, peers: Iterable[Peer], owners: PrefixMap[str]) -> list[Route]:
    routes: list[Route] = []
    holders: dict[tuple[int, int], str] = {}
    for peer in peers:
        keys = ("peers", peer.name, "address")
        if not peer.addresses and network.device != TAP and not peer.by_wg:  # a bridge needs none
            raise KeyProblem(
                keys,
                "is missing and no subnet gives one; write the address of this host on the overlay, "
                "such as 10.244.1.1",
            )
        for address, number in zip(peer.addresses, peer.numbers, strict=True):
            earlier = holders.setdefault(number, peer.name)
            if earlier != peer.name:
                raise KeyProblem(
                    keys,
                    f"{address} is also the address of {_named(earlier)}; write one for each of them "
                    "(by default it is the network address of the first subnet)",
                )
            if owners.lookup_number(*number) == peer.name:
                continue
            taken_by = owners.insert(host_prefix(address), peer.name)
            if taken_by is not None:
                raise KeyProblem(
                    keys,
                    f"{address} is also a subnet of {_named(taken_by)}; write another address or remove the subnet",
                )
            routes.append((host_prefix(address), peer.name))
    return routes


def _check_mtu(network: Network, routes: Iterable[Route]) -> None:
    if network.mtu is None or network.mtu >= IPV6_MINIMUM_MTU:
        return
    users = [(prefix, "network") for prefix in network.prefixes]
    users += [(prefix, _named(name)) for prefix, name in routes]
    for prefix, user in users:
        if prefix.version == 6:
            raise KeyProblem(
                ("network", "mtu"),
                f"{network.mtu} is too small for IPv6, and {user} has {prefix}; "
                f"write at least {IPV6_MINIMUM_MTU} or remove it",
            )


def _check_endpoints(network: Network, peers: Iterable[Peer], owners: PrefixMap[str]) -> None:
    """Refuse endpoints whose datagrams the network's own route would take back into the same tunnel.

    Outside the network's prefixes a subnet that holds an endpoint is routed by policy, past which the
    agent's own datagrams find their way; inside another peer's prefix it is a tunnel in a tunnel.
    """
    carried = PrefixMap((prefix, True) for prefix in network.prefixes)
    for peer in peers:
        address = None if peer.endpoint is None else peer.endpoint.address
        if address is None or not carried.lookup(address):
            continue
        found = owners.match(address)
        if found is not None and found[1] == peer.name:
            raise KeyProblem(
                ("peers", peer.name, "endpoint"),
                f"{address} lies inside its own subnet {found[0]}: it could only be reached through the "
                "tunnel itself; give its underlay address",
            )


def _find_outside(network: Network, peers: Iterable[Peer], hosts: Iterable[Route]) -> Iterator[Route]:
    """Yield the routes outside all of the network's prefixes, in the order of all routes."""
    carried = PrefixMap((prefix, True) for prefix in network.prefixes)
    for peer in peers:
        for route, place in zip(peer.routes, peer.places, strict=True):
            if not carried.covers(place):
                yield route
    for route in hosts:
        if not carried.covers(place_of(route[0])):
            yield route


def _named(name: str) -> str:
    return format_keys(("peers", name))
