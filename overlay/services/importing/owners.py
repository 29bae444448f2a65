"""Which peers the servers of an imported file are: those of a peers file, or new unencrypted ones."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.services.importing.plan import PlannedTunnel, RealServer
    from peers.addresses import Address, Prefix
    from peers.table import Table

# Ours
PREFIXES = (
    "10.244.0.0/16",
    "10.245.0.0/16",
    "10.99.0.0/16",
    "172.30.0.0/16",
    "192.168.244.0/22",
    "100.100.0.0/16",
    "198.18.0.0/16",
)
"""Prefixes for a new overlay: the first one without an address of the imported file is used."""
LAST_RESORT = "fd6f:7665:726c::/64"


@dataclass(frozen=True, slots=True)
class Owner:
    """The peer of a server; *address* is that of a container behind it, None for the peer itself."""

    peer: str
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class NewPeer:
    """A peer that the output must contain: *endpoint* is where its outer packets go."""

    name: str
    address: Address
    endpoint: str
    tunnel: PlannedTunnel


class AmbiguousError(Exception):
    """A server could be one of several peers.  The text continues after the server."""


class KnownPeers:
    """The peers of *table*, looked up by the address of a server."""

    def __init__(self, table: Table | None) -> None:
        self._table = table
        self._by_address: dict[Address, str] = {}
        self._by_endpoint: defaultdict[Address, list[str]] = defaultdict(list)
        for peer in () if table is None else table.peers.values():
            for address in peer.addresses:
                self._by_address[address] = peer.name
            if peer.endpoint is not None and peer.endpoint.address is not None:
                self._by_endpoint[peer.endpoint.address].append(peer.name)

    def find(self, address: Address) -> Owner | None:
        """Return the owner of *address*, by addresses, endpoints, then subnets of hosts with an agent; None if there is
        none.

        Raises AmbiguousError if two peers have their endpoints there.
        """
        if address in self._by_address:
            return Owner(self._by_address[address])
        at_endpoint = self._by_endpoint.get(address, [])
        if len(at_endpoint) > 1:
            raise AmbiguousError(
                f"{address} is where {' and '.join(at_endpoint)} have their endpoints; write which of them is meant"
            )
        if at_endpoint:
            return Owner(at_endpoint[0])
        name = None if self._table is None else self._table.owners.lookup(address)
        if self._table is None or name is None or not self._table.peers[name].is_agent:
            return None
        return Owner(name, address)


@dataclass(slots=True)
class Newcomers:
    """New peers, one for each unknown server, with unused names and addresses.

    Their addresses on the overlay only distinguish them; sending to a service does not need them.
    """

    prefixes: tuple[Prefix, ...]
    table: Table | None
    peers: dict[tuple[Address, PlannedTunnel], NewPeer] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _addresses: Iterator[Address] | None = None

    def add(self, server: RealServer) -> NewPeer:
        """Return the peer of *server*, which the first call for its address and tunnel creates."""
        key = server.address, server.tunnel
        if key not in self.peers:
            name = self._free_name(str(server.address).replace(":", "-"))
            self.peers[key] = NewPeer(name, self.next_address(), str(server.address), server.tunnel)
        return self.peers[key]

    def next_address(self) -> Address:
        """Return an address that no peer has, in the overlay if there is one left."""
        if self._addresses is None:
            self._addresses = _free_addresses(self.prefixes, self.table)
        return next(self._addresses)

    def _free_name(self, name: str) -> str:
        known: Iterable[str] = () if self.table is None else self.table.peers
        candidate = name
        while candidate in self._names or candidate in known:
            candidate += "-server"
        self._names.add(candidate)
        return candidate


def free_prefix(used: Iterable[Address]) -> Prefix:
    """Return a prefix for a new overlay that contains none of the addresses *used*."""
    taken = list(used)
    for text in PREFIXES:
        prefix = IPv4Network(text)
        if not any(address in prefix for address in taken):
            return prefix
    return IPv6Network(LAST_RESORT)


def _free_addresses(prefixes: tuple[Prefix, ...], table: Table | None) -> Iterator[Address]:
    """Yield addresses of *prefixes*, then of others, that no route of *table* except a default one covers.

    A new overlay is filled from its beginning, a known one from its end, which people rarely use.
    """
    if table is None:
        base = prefixes[0].network_address
        for number in range(1, prefixes[0].num_addresses - 1):
            yield type(base)(int(base) + number)
    for prefix in (*prefixes, *map(IPv4Network, PREFIXES), IPv6Network(LAST_RESORT)):
        base = prefix.network_address
        offset = prefix.num_addresses - 2
        while offset > 0:
            address = type(base)(int(base) + offset)
            found = None if table is None else table.owners.match(address)
            if found is None or not found[0].prefixlen:
                yield address
                offset -= 1
            else:  # past the end of the prefix
                offset = int(found[0].network_address) - int(base) - 1
