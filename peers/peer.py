"""One peer of the overlay, its endpoint, and what all peers share.

A key of [network] or of a [peers.NAME] is a field of Network or Peer, with its row.  What is refused, suggested for a
misspelt key and demanded of the documentation follows from the row; a key that is left out leaves the default.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Self

from peers.addresses import (
    BROADCAST,
    Address,
    Prefix,
    is_host_address,
    parse_address,
    parse_host_address,
    parse_prefix,
)
from peers.encapsulation import DEFAULT_VNI, ENCAPSULATIONS, GRE_KEY, PORTS, VNI, WIREGUARD
from peers.errors import KeyProblem
from peers.key import Key, choice, each, integer, key, keys
from peers.listening import EXAMPLE, Listening, parse_place
from peers.mac import format_mac, parse_mac
from peers.prefixes import place_of
from peers.toml_section import Section, describe, refuse_second_of_family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from peers.prefixes import Place

# Specification
KEY_SIZE = 32  # a Curve25519 public key
KEY_TEXT_SIZE = 44  # its base64 text
HOST_NAME_SIZE = 253  # RFC 1035 section 2.3.4, as text
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")

# Ours
DEFAULT_STATIONS, MOST_STATIONS = 4096, 1_000_000
INHERITED = 0  # as a TTL: copied from the inner packet; Linux writes it the same way
TUN, TAP = "tun", "tap"
PEER_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")  # fits log lines, file names and shells without quoting


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to reach a peer: an IP address or a DNS name as configured, and a UDP port, 0 if it has none."""

    host: str
    port: int
    address: Address | None = field(init=False, repr=False, compare=False)
    """The host as an address; None if it is a DNS name."""

    def __post_init__(self) -> None:
        try:
            address = parse_address(self.host)
        except ValueError:
            address = None
        object.__setattr__(self, "address", address)

    @classmethod
    def parse(cls, text: str, default_port: int) -> Self:
        """Read HOST, HOST:PORT or [IPV6]:PORT.  Raises ValueError; its message continues after *text*."""
        host, port = _split_port(text)
        endpoint = cls(host, default_port if port is None else _parse_port(port))
        address = endpoint.address
        if address is None:
            _check_host_name(host)
        elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            raise ValueError(
                f"is an IPv4 address in IPv6 form; write {cls(str(address.ipv4_mapped), endpoint.port)}"
            )
        elif address.is_unspecified or address.is_multicast or address == BROADCAST:
            raise ValueError("is not the address of a single host; write the address where others reach it")
        elif isinstance(address, IPv6Address) and address.is_link_local and address.scope_id is None:
            raise ValueError(f"is link-local, but names no interface; write it after %, as in {host}%eth0")
        return endpoint

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _subnets(section: Section, name: str) -> tuple[Prefix, ...] | None:
    return section.each(
        name, parse_prefix, "a prefix such as 10.244.1.0/24"
    )  # the table refuses repeated ones


def _addresses(section: Section, name: str) -> tuple[Address, ...] | None:
    addresses = section.each(name, parse_host_address, "an address such as 10.244.1.1")
    refuse_second_of_family((*section.keys, name), addresses or ())
    return addresses


def _public_key(section: Section, name: str) -> bytes | None:
    text = section.string(name, "the public key")
    try:
        return None if text is None else parse_public_key(text)
    except ValueError as error:
        raise KeyProblem((*section.keys, name), str(error)) from None


def _ttl(section: Section, name: str) -> int | None:
    if section.values.get(name) == "inherit":
        return INHERITED
    return section.integer(name, 1, 255, 'the word "inherit" in quotes, or a number')


def _listening(section: Section, name: str) -> Listening | None:
    text = section.string(name, EXAMPLE)
    try:
        return None if text is None else parse_place(text)
    except ValueError as error:
        raise KeyProblem((*section.keys, name), f"{describe(text)} {error}") from None


_PORT = integer(1, 65535, "a UDP port")
_ENCAPSULATION = key(choice(*ENCAPSULATIONS))
_GRE_KEY, _SWITCH = key(integer(0, GRE_KEY.largest, "a number")), key(Section.boolean)


@dataclass(frozen=True, slots=True)
class Peer:
    """One host of the overlay.

    *public_key* is 32 bytes; None where no tunnel of the peer is encrypted.  *addresses* are its own on the overlay, at
    most one of each family; *subnets* are what lies behind it, its own addresses included or not.  *keepalive* is in
    seconds, 0 for none.  *listen* and *listen_port* are for the node itself: what its sockets bind to; empty and None
    leave it at every address and the network's port.  *encapsulation* holds for its tunnels with everyone; None leaves
    it to the network.  *sources* are addresses in addition to its subnets from which packets may come in the clear.
    *gre_key*, *gre_checksum* and *gre_sequence* are those of its GRE tunnels with everyone, None for the network's.
    *macs* are Ethernet addresses, of 6 bytes each: the first is the peer's own if frames end there; none of them is at
    another peer if frames go on.  *agent* tells whether an agent of this project runs there; None leaves it to the
    public key: see is_agent.  *by_wg* tells that `wg` made it or changed it: it need not have an address, which
    that program does not know.
    """

    name: str
    public_key: bytes | None = field(metadata=key(_public_key))
    subnets: tuple[Prefix, ...] = field(default=(), metadata=key(_subnets))
    addresses: tuple[Address, ...] = field(default=(), metadata=key(_addresses, "address"))
    endpoint: Endpoint | None = field(default=None, metadata=key(None))
    preshared_key_file: Path | None = field(default=None, metadata=key(None))
    keepalive: int = field(default=0, metadata=key(integer(0, 65535, "seconds")))
    listen: tuple[Address, ...] = field(
        default=(), metadata=key(each(parse_address, "an address such as 192.0.2.10"))
    )
    listen_port: int | None = field(default=None, metadata=key(_PORT))
    encapsulation: str | None = field(default=None, metadata=_ENCAPSULATION)
    sources: tuple[Prefix, ...] = field(
        default=(), metadata=key(each(parse_prefix, "a prefix such as 0.0.0.0/0"))
    )
    gre_key: int | None = field(default=None, metadata=_GRE_KEY)
    gre_checksum: bool | None = field(default=None, metadata=_SWITCH)
    gre_sequence: bool | None = field(default=None, metadata=_SWITCH)
    macs: tuple[bytes, ...] = field(
        default=(),
        metadata=key(each(parse_mac, "an Ethernet address such as 02:00:5e:10:00:01", format_mac), "mac"),
    )
    agent: bool | None = field(default=None, metadata=_SWITCH)
    by_wg: bool = False
    # Made once, for a peer outlives many tables
    routes: tuple[tuple[Prefix, str], ...] = field(init=False, repr=False, compare=False)
    """Its subnets, each with its name."""
    places: tuple[Place, ...] = field(init=False, repr=False, compare=False)
    """Where its subnets stand in a PrefixMap."""
    numbers: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """Its addresses as version and number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", tuple((subnet, self.name) for subnet in self.subnets))
        object.__setattr__(self, "places", tuple(map(place_of, self.subnets)))
        object.__setattr__(
            self, "numbers", tuple((address.version, int(address)) for address in self.addresses)
        )

    @property
    def is_agent(self) -> bool:
        """Whether an agent of this project runs there, as far as the file tells:
        a peer without a key may be a kernel's tunnel.
        """
        return self.public_key is not None if self.agent is None else self.agent


@dataclass(frozen=True, slots=True)
class Network:
    """What all peers share: the prefixes that the overlay carries, the UDP ports, MTU, mark and encapsulation.

    *ports* are by encapsulation; those that are left out are the default.

    *mtu* is the device's, in bytes; None derives it from the underlay.  With *fwmark* None the agent chooses one.
    *bulk* tells whether agents that can seal super-packets as a whole do so.  *ttl* is for the
    outer headers, None for the system's; INHERITED takes the inner packet's where that is in the clear anyway.
    *device* is ``tun``, for IP packets, or ``tap``, for Ethernet frames.  With *point_to_point* the two peers have
    each other's addresses as the far end of the device.  With *masquerade* what leaves the overlay at a host gets an
    address of that host; with *forward* each host's packet filters let pass what is from or for its subnets.  *metrics*
    is where each host tells monitoring how it is, None for nowhere.  *stations* are the Ethernet addresses that a tap
    learns at most at one peer.
    """

    prefixes: tuple[Prefix, ...] = field(
        metadata=key(each(parse_prefix, "a prefix such as 10.244.0.0/16"), "prefix")
    )
    ports: Mapping[str, int] = field(
        default_factory=dict,
        hash=False,
        metadata=keys(*(Key(port.key, _PORT, port.key) for port in PORTS.values())),
    )
    mtu: int | None = field(default=None, metadata=key(integer(576, 65535, "bytes")))
    fwmark: int | None = field(default=None, metadata=key(integer(1, 2**32 - 1, "a mark")))
    bulk: bool = field(default=True, metadata=_SWITCH)
    encapsulation: str = field(default=WIREGUARD, metadata=_ENCAPSULATION)
    vni: int = field(default=DEFAULT_VNI, metadata=key(integer(0, VNI.largest, "a number")))
    gre_key: int | None = field(default=None, metadata=_GRE_KEY)
    gre_checksum: bool | None = field(default=None, metadata=_SWITCH)
    gre_sequence: bool | None = field(default=None, metadata=_SWITCH)
    ttl: int | None = field(default=None, metadata=key(_ttl))
    device: str = field(default=TUN, metadata=key(choice(TUN, TAP)))
    point_to_point: bool = field(default=False, metadata=_SWITCH)
    masquerade: bool = field(default=False, metadata=_SWITCH)
    forward: bool = field(default=False, metadata=_SWITCH)
    metrics: Listening | None = field(default=None, metadata=key(_listening))
    stations: int = field(
        default=DEFAULT_STATIONS, metadata=key(integer(1, MOST_STATIONS, "a number of Ethernet addresses"))
    )

    def __post_init__(self) -> None:
        defaults = {name: port.default for name, port in PORTS.items()}
        object.__setattr__(self, "ports", defaults | dict(self.ports))

    def port_for(self, encapsulation: str) -> int:
        """Return the UDP port of *encapsulation* at peers that configure no other; 0 if it has no ports."""
        return self.ports.get(encapsulation, 0)


def preshared_key_file_for(a: Peer, b: Peer) -> Path | None:
    """Return the file whose key both *a* and *b* use between them; None if they use none.

    The peers file is the same everywhere, so a key file named at a peer protects its tunnels with everyone,
    and each host needs that file.  Where both ends name one, both use the file of the peer whose name sorts
    first.
    """
    first, second = sorted((a, b), key=lambda peer: peer.name)
    return first.preshared_key_file or second.preshared_key_file


def default_addresses(subnets: Iterable[Prefix], prefixes: Collection[Prefix]) -> tuple[Address, ...]:
    """Return the addresses of a peer that names none: at most one of each family, IPv4 first.

    It is the network address of the first subnet that lies inside one of the network's *prefixes*, else of the
    first subnet, so that a LAN listed first does not lend its address.  Subnets whose network address no host
    can have, such as 0.0.0.0/0, are passed over.
    """
    outside: dict[int, Address] = {}
    inside: dict[int, Address] = {}
    for subnet in subnets:
        address = subnet.network_address
        if subnet.version in inside or not is_host_address(address):
            continue
        if any(address in prefix for prefix in prefixes):
            inside[subnet.version] = address
        else:
            outside.setdefault(subnet.version, address)
    return tuple(address for _, address in sorted((outside | inside).items()))


def parse_public_key(text: str) -> bytes:
    """Return the 32 bytes that *text* writes in base64, as WireGuard does.

    Raises ValueError; its message continues after the name of the key and never contains *text*, which may be
    a secret put there by mistake.  Points of low order are accepted, as in WireGuard; the handshake fails.
    """
    if len(text) != KEY_TEXT_SIZE:
        raise ValueError(f"has {len(text)} characters; a public key has 44 of base64, see overlay pubkey")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE or format_public_key(key) != text:
        raise ValueError("is not the base64 of 32 bytes; copy the public key as overlay pubkey prints it")
    if not any(key):
        raise ValueError("is all zeros, which is not a key; copy the public key as overlay pubkey prints it")
    return key


def format_public_key(key: bytes) -> str:
    """Return *key* in base64, as WireGuard writes it."""
    return base64.b64encode(key).decode("ascii")


def _split_port(text: str) -> tuple[str, str | None]:
    """Return host and port of an endpoint as written; port None if there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError("has wrong brackets; write an IPv6 endpoint as [2001:db8::1]:51820")
        return host, rest[1:] if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _parse_port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError("has no valid port; write one from 1 to 65535 after the colon")


def _check_host_name(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    is_name = len(host) <= HOST_NAME_SIZE and all(LABEL.fullmatch(label) for label in labels)
    if ":" in host:
        raise ValueError("is not an IPv6 address; write 2001:db8::1, or [2001:db8::1]:51820 with a port")
    if labels[-1].isdigit():
        raise ValueError("is not an IPv4 address; write four numbers from 0 to 255, such as 192.0.2.10")
    if not is_name and not host.isascii() and (ascii_name := _ascii_name(host)) is not None:
        raise ValueError(f"has letters beyond ASCII; write the name as DNS has it, {ascii_name}")
    if not is_name:
        raise ValueError(
            "is neither an address nor a DNS name; write one such as 192.0.2.10 or vpn.example.net:51820"
        )


def _ascii_name(host: str) -> str | None:
    """Return *host* with each label that is not ASCII as ``xn--`` (RFC 3490); None if that cannot be done."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return name if all(LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")) else None
