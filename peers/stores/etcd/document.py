"""The document of a network: a peers file with the peers that do not join by themselves, and [leases] in addition.

[leases]
prefix = ["10.244.0.0/16", "fd00:244::/48"]   # what subnets are given out of; default: the network's, one a family
length = 24                                   # of an IPv4 subnet
length6 = 64                                  # of an IPv6 subnet, which has the number of the IPv4 one
seconds = 60                                  # how long a node that is silent keeps its subnet
"""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from peers.addresses import host_prefix, parse_prefix
from peers.encapsulation import is_encrypted
from peers.errors import KeyProblem, TableError, format_keys
from peers.kinds import KINDS
from peers.peer_section import PEERS
from peers.prefixes import PrefixMap, place_of
from peers.problems import find_problems
from peers.services.conflicts import EVERYBODY, places
from peers.services.sections import SERVICES, services_of
from peers.toml import parse_document, read_network, to_error
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.peer import Network, Peer

# Ours
LEASES = "leases"
SECONDS, LEAST_SECONDS, MOST_SECONDS = 60, 10, 7 * 24 * 3600
LENGTH, LENGTH6 = 24, 64

HEADER = re.compile(r"^[ \t]*\[[ \t]*leases[ \t]*\][ \t]*(?:#[^\n]*)?$", re.MULTILINE)
NEXT = re.compile(r"^[ \t]*\[", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Leases:
    """How subnets are given out: *pools*, at most one of each family, are cut into subnets of *lengths*.

    The subnets of one number go together.  The first number is left out where there are others, for its address is
    that of the network.
    """

    pools: tuple[Prefix, ...]
    lengths: tuple[int, ...]
    seconds: int = SECONDS

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return min(
            1 << (length - pool.prefixlen) for pool, length in zip(self.pools, self.lengths, strict=True)
        )

    def numbers(self) -> range:
        """Return the numbers that are given out."""
        return range(1 if self.count > 1 else 0, self.count)

    def subnets(self, number: int) -> tuple[Prefix, ...]:
        """Return the subnets of a number, IPv4 first."""
        return tuple(
            _cut(pool, length, number) for pool, length in zip(self.pools, self.lengths, strict=True)
        )

    def number_of(self, subnet: Prefix) -> int | None:
        """Return the number whose first subnet is *subnet*; None if there is none."""
        pool, length = self.pools[0], self.lengths[0]
        if subnet.version != pool.version or subnet.prefixlen != length:
            return None
        number = (int(subnet.network_address) - int(pool.network_address)) >> (_width(pool) - length)
        return number if 0 <= number < self.count else None


@dataclass(frozen=True, slots=True)
class Document:
    """What a document says: *text* is that of its peers file, where [leases] is left out and each line has its place.

    *peers* are those that it lists, and *taken* all prefixes and addresses that no other peer may have.  *named* are
    the peers that services name, of which some may join by themselves.
    """

    text: str
    network: Network
    leases: Leases
    peers: Mapping[str, Peer]
    taken: PrefixMap[str] = field(compare=False)
    named: tuple[str, ...] = ()

    def stand_ins(self, names: set[str], used: PrefixMap[str]) -> Iterator[tuple[str, str]]:
        """Yield the name and the section of a stand-in for each peer that services name and that does not exist.

        A server that is away is not missing from the network: it stays in its service, and fails its checks.
        """
        for name in self.named:
            if name in names:
                continue
            address = free_address(self.network, self.taken, used)
            if address is None:
                return
            used.insert(host_prefix(address.network_address), name)
            lines = [header(name)]
            lines.append(f'public_key = "{nobody(name)}"')
            lines.append(f'address = "{address.network_address}"')
            if not is_encrypted(self.network.encapsulation):
                lines.append('encapsulation = "wireguard"')
            yield name, "\n".join(lines) + "\n"


def decode_document(value: bytes, path: Path) -> str:
    """Return the text of a document; *path* names it in errors.  Raises TableError."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise TableError(path, None, "it is not UTF-8; write it with `overlay network edit`") from None


def read_document(text: str, path: Path) -> Document:
    """Return what *text* says; *path* names it in errors.  Raises TableError.

    That the peers and services fit together is not looked at, because those that join by themselves are missing:
    see check_document().
    """
    rest, piece, first = split_leases(text)
    document = parse_document(rest, path)
    try:
        network = read_network(
            document.section("network", 'write a [network] table with prefix = "10.244.0.0/16"')
        )
        peers = PEERS.read_all(document, network, None) if PEERS.name in document.values else {}
        sections: dict[Any, Any] = {
            kind: kind.read_all(document, network, None) for kind in KINDS if kind is not PEERS
        }
        services = services_of(sections) if sections.get(SERVICES) else {}
    except KeyProblem as problem:
        raise to_error(problem, rest, path) from None
    leases = _read_leases(piece, first, network, path)
    taken: PrefixMap[str] = PrefixMap()
    named: dict[str, None] = {}
    carried = PrefixMap((prefix, True) for prefix in network.prefixes)
    for peer in peers.values():
        for prefix in (*peer.subnets, *map(host_prefix, peer.addresses)):
            # The way out of the network, as 0.0.0.0/0, takes nothing of it.
            if carried.covers(place_of(prefix)):
                taken.insert(prefix, f"peers.{peer.name}")
    for service in services.values():
        for address in service.addresses:
            taken.insert(host_prefix(address), f"services.{service.name}")
        directors = service.directors or ()
        named.update(dict.fromkeys((*directors, *(server.peer for _, server in places(service)))))
    named.pop(EVERYBODY, None)
    return Document(rest, network, leases, peers, taken, tuple(named))


def check_document(text: str, path: Path, most: int) -> list[TableError]:
    """Return what is wrong with *text* as far as it can be known without the nodes, at most *most* problems."""
    try:
        document = read_document(text, path)
    except TableError as error:
        rest, _, _ = split_leases(text)
        found = find_problems(rest, path, most, has_directory=False)
        return [each for each in found if "peers is missing" not in each.problem] or [error]
    sections = [section for _, section in document.stand_ins(set(document.peers), PrefixMap())]
    if not document.peers and not sections:
        sections = [_only_peer(document)]
    whole = _joined(document.text, sections)
    return find_problems(whole, path, most, has_directory=False)


def split_leases(text: str) -> tuple[str, str, int]:
    """Return *text* with blank lines in the place of [leases], that section, and the number of its first line,
    from 1.
    """
    found = HEADER.search(text)
    if found is None:
        return text, "", 1
    after = NEXT.search(text, found.end())
    end = after.start() if after is not None else len(text)
    piece = text[found.start() : end]
    blank = "\n" * piece.count("\n")
    return text[: found.start()] + blank + text[end:], piece, text.count("\n", 0, found.start()) + 1


def _joined(text: str, sections: list[str]) -> str:
    return "\n".join([text.rstrip("\n"), "", *sections])


def _only_peer(document: Document) -> str:
    """Return the section of a peer without which a document that lists none cannot be checked."""
    version = document.network.prefixes[0].version
    address = "240.0.0.1" if version == 4 else "0100::1"
    encapsulation = "" if is_encrypted(document.network.encapsulation) else 'encapsulation = "wireguard"\n'
    return f'[peers.nobody]\npublic_key = "{nobody("nobody")}"\naddress = "{address}"\n{encapsulation}'


def _read_leases(piece: str, first: int, network: Network, path: Path) -> Leases:
    try:
        values = tomllib.loads(piece).get(LEASES, {})
    except (ValueError, RecursionError) as error:
        raise TableError(path, first, f"[leases] is not TOML ({error}); correct it") from None
    section = Section((LEASES,), values)
    try:
        section.refuse_unknown(("prefix", "length", "length6", "seconds"))
        seconds = section.integer("seconds", LEAST_SECONDS, MOST_SECONDS, "seconds") or SECONDS
        pools = section.each("prefix", parse_prefix, "a prefix such as 10.244.0.0/16")
        if pools is not None and not pools:
            raise KeyProblem((LEASES, "prefix"), "is empty; write a prefix of the network, or remove it")
        chosen: dict[int, Prefix] = {}
        for index, pool in enumerate(pools or network.prefixes):
            if pools is not None:
                _check_pool(pool, index, chosen, network)
            chosen.setdefault(pool.version, pool)
        in_order = [chosen[version] for version in sorted(chosen)]
        lengths = []
        for pool in in_order:
            key, default, most = ("length", LENGTH, 30) if pool.version == 4 else ("length6", LENGTH6, 126)
            default = default if pool.prefixlen < default else min(pool.prefixlen + 8, most)
            length = section.integer(key, pool.prefixlen + 1, most, "a prefix length") or default
            if length <= pool.prefixlen:
                raise KeyProblem(
                    (LEASES, "prefix"), f"{pool} is too small to give subnets of; write a wider one"
                )
            lengths.append(length)
        leases = Leases(tuple(in_order), tuple(lengths), seconds)
    except KeyProblem as problem:
        found = to_error(problem, piece, path)
        line = None if found.line is None else found.line + first - 1
        raise TableError(path, line, found.problem) from None
    return leases


def _check_pool(pool: Prefix, index: int, chosen: dict[int, Prefix], network: Network) -> None:
    if pool.version in chosen:
        raise KeyProblem(
            (LEASES, "prefix", index), f"{pool} is a second one of its family; write one of each"
        )
    carried = PrefixMap((prefix, True) for prefix in network.prefixes)
    if not carried.covers(place_of(pool)):
        known = ", ".join(map(str, network.prefixes))
        raise KeyProblem(
            (LEASES, "prefix", index), f"{pool} is not in the network's prefix; write a part of {known}"
        )


def _cut(pool: Prefix, length: int, number: int) -> Prefix:
    start = int(pool.network_address) + (number << (_width(pool) - length))
    return IPv4Network((start, length)) if isinstance(pool, IPv4Network) else IPv6Network((start, length))


def _width(prefix: Prefix) -> int:
    return 32 if prefix.version == 4 else 128


def free_address(network: Network, *taken: PrefixMap[str]) -> Prefix | None:
    """Return the first free address of the network, as a prefix; None if there is none."""
    prefix, number = network.prefixes[0], 1
    while number < prefix.num_addresses:
        address = prefix.network_address + number
        found = [each.match(address) for each in taken]
        ends = [int(match[0].broadcast_address) for match in found if match is not None]
        if not ends:
            return host_prefix(address)
        number = max(ends) + 1 - int(prefix.network_address)
    return None


def nobody(name: str) -> str:
    """Return a public key whose private key is not known to anyone."""
    return base64.b64encode(
        hashlib.sha256(b"overlay: nobody has this key\0" + name.encode()).digest()
    ).decode()


def header(name: str) -> str:
    """Return the header of the section of the peer *name*."""
    return f"[{format_keys(('peers', name))}]"
