"""The text format of WireGuard's cross-platform interface: settings and answers, as text and as values.

A request consists of lines ``KEY=VALUE`` and ends with an empty line; the first line is the kind of request:

- ``get=1``: the device and its peers, as describe() writes them, and ``errno=0``.
- ``set=1``: what parse_set() reads, in order; the answer is ``errno=0``, or the error's number with a minus.

Keys are in hexadecimal, prefixes and endpoints as ``wg`` shows them, everything else in decimal
(https://www.wireguard.com/xplatform/).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from overlay.crypto.keys import PresharedKey, PrivateKey
from overlay.uapi.errors import INVALID, PROTOCOL, RefusedError
from peers.peer import KEY_SIZE, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from peers.addresses import Prefix

# Specification
GET, SET = "get=1", "set=1"
NO_KEY = bytes(KEY_SIZE)  # means none
IPV4_WIDTH = 32  # bits of an address
LARGEST_PORT, LARGEST_MARK = 2**16 - 1, 2**32 - 1
LARGEST_KEEPALIVE = 2**16 - 1  # seconds

# Ours
LINE_SIZE = 1024  # characters; the longest valid line has 140


@dataclass(frozen=True, slots=True)
class AllowedIp:
    """A prefix that the peer gets or, with *is_removed*, loses if it has it."""

    prefix: Prefix
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A change of the peer with *public_key*, 32 bytes; None leaves a value as it is.

    With *is_update*, a peer that does not exist is not made.  *preshared_key* may be NO_PRESHARED_KEY, which removes
    it.  With *replaces_allowed*, the peer loses its prefixes before it gets *allowed*.
    """

    public_key: bytes
    is_removed: bool = False
    is_update: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    keepalive: int | None = None
    replaces_allowed: bool = False
    allowed: tuple[AllowedIp, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What a ``set`` changes; None leaves a value as it is.  The peers change in order.

    *takes_key* tells whether *private_key* counts, which is None for no key.  *listen_port* 0 is any free port,
    *fwmark* 0 is none.  *is_up*, which no request can set, reports that the interface is up now.
    """

    takes_key: bool = False
    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replaces_peers: bool = False
    peers: tuple[PeerChange, ...] = ()
    is_up: bool = False


@dataclass(frozen=True, slots=True)
class ShownPeer:
    """A peer as it is shown.  *handshake* is the time of the last one by the wall clock, in nanoseconds; 0 for none."""

    public_key: bytes
    preshared_key: bytes | None = field(repr=False)
    endpoint: str | None
    keepalive: int
    allowed: tuple[Prefix, ...]
    handshake_ns: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class ShownDevice:
    """A device as it is shown, without its peers."""

    private_key: PrivateKey | None
    listen_port: int
    fwmark: int


NO_PRESHARED_KEY = PresharedKey(NO_KEY)
OCTETS = {str(number): number for number in range(256)}


def parse_set(lines: Iterable[str]) -> DeviceChange:
    """Read the lines after ``set=1``, without the empty one.  Raises RefusedError, and nothing else, for any text."""
    device: dict[str, Any] = {}
    peers: list[PeerChange] = []
    draft: _Draft | None = None
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or len(line) > LINE_SIZE:
            raise RefusedError(PROTOCOL, "wg sent a line that is not KEY=VALUE")
        if key == "public_key":
            if draft is not None:
                peers.append(draft.change())
            draft = _Draft(_key(key, value))
        elif draft is not None:
            draft.take(key, value)
        else:
            _take(device, key, value)
    if draft is not None:
        peers.append(draft.change())
    return DeviceChange(**device, peers=tuple(peers))


def describe(device: ShownDevice, peers: Iterable[ShownPeer]) -> Iterator[str]:
    """Yield the lines of *device* and its *peers*, a piece of text for each, that answer ``get=1``;
    ``errno`` comes after.
    """
    lines = []
    if device.private_key is not None:
        lines.append(f"private_key={device.private_key.to_hex()}\n")
    if device.listen_port:
        lines.append(f"listen_port={device.listen_port}\n")
    if device.fwmark:
        lines.append(f"fwmark={device.fwmark}\n")
    yield "".join(lines)
    for peer in peers:
        seconds, nanoseconds = divmod(peer.handshake_ns, 10**9)
        lines = [
            f"public_key={peer.public_key.hex()}\n",
            f"preshared_key={(peer.preshared_key or NO_KEY).hex()}\n",
            "protocol_version=1\n",
            f"endpoint={peer.endpoint}\n" if peer.endpoint is not None else "",
            f"last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={nanoseconds}\n",
            f"tx_bytes={peer.sent}\nrx_bytes={peer.received}\n",
            f"persistent_keepalive_interval={peer.keepalive}\n",
            *(f"allowed_ip={prefix}\n" for prefix in peer.allowed),
        ]
        yield "".join(lines)


def result(number: int = 0) -> str:
    """Return the end of an answer: *number* is a positive errno, 0 for success."""
    return f"errno={-number}\n\n"


@dataclass(slots=True)
class _Draft:
    # A peer of which not all lines have been read.
    public_key: bytes
    values: dict[str, Any] = field(default_factory=dict)
    replaces_allowed: bool = False
    allowed: list[AllowedIp] = field(default_factory=list)

    def take(self, key: str, value: str) -> None:
        match key:
            case "allowed_ip":
                self.allowed.append(_allowed_ip(value))
            case "replace_allowed_ips":
                _true(key, value)
                self.replaces_allowed = True
                self.allowed.clear()
            case "protocol_version":
                if value != "1":
                    raise _refuse(key, "1")
            case _:
                read = PEER_KEYS.get(key)
                if read is None:
                    raise RefusedError(INVALID, f"wg sent {_shown(key)}, which is not a key of a peer")
                name, parse = read
                self.values[name] = parse(key, value)

    def change(self) -> PeerChange:
        return PeerChange(
            self.public_key,
            replaces_allowed=self.replaces_allowed,
            allowed=tuple(self.allowed),
            **self.values,
        )


def _take(device: dict[str, Any], key: str, value: str) -> None:
    if key == "private_key":
        secret = _key(key, value)
        device["takes_key"] = True
        device["private_key"] = None if secret == NO_KEY else PrivateKey(secret)
        return
    read = DEVICE_KEYS.get(key)
    if read is None:
        raise RefusedError(INVALID, f"wg sent {_shown(key)}, which is not a key of a device")
    name, parse = read
    device[name] = parse(key, value)


def _key(key: str, value: str) -> bytes:
    try:
        found = bytes.fromhex(value) if len(value) == 2 * KEY_SIZE and value.isalnum() else b""
    except ValueError:
        found = b""
    if len(found) != KEY_SIZE:
        raise _refuse(key, "64 hexadecimal digits")
    return found


def _preshared_key(key: str, value: str) -> PresharedKey:
    return PresharedKey(_key(key, value))


def _true(key: str, value: str) -> bool:
    if value != "true":
        raise _refuse(key, "true")
    return True


def _number(largest: int) -> Callable[[str, str], int]:
    def read(key: str, value: str) -> int:
        if value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= largest:
            return int(value)
        raise _refuse(key, f"a number from 0 to {largest}")

    return read


def _mark(key: str, value: str) -> int:
    return _number(LARGEST_MARK)(key, value) if value else 0


def _endpoint(key: str, value: str) -> Endpoint:
    try:
        endpoint = Endpoint.parse(value, 0)
    except ValueError:
        endpoint = None
    if endpoint is None or endpoint.address is None or not endpoint.port:
        raise _refuse(key, "ADDRESS:PORT")
    return endpoint


def _allowed_ip(value: str) -> AllowedIp:
    is_removed = value.startswith("-")
    text = value[1:] if is_removed else value
    address, slash, length = text.partition("/")
    try:
        if slash and length.isascii() and length.isdigit() and "%" not in address:
            is_ipv6 = ":" in address
            prefix = IPv6Network(text, strict=False) if is_ipv6 else _ipv4_network(address, int(length))
            return AllowedIp(prefix, is_removed)
    except (ValueError, KeyError):
        pass
    raise _refuse("allowed_ip", "ADDRESS/LENGTH")


def _ipv4_network(address: str, length: int) -> IPv4Network:
    """Return the network of *length* that contains *address*, in half the time of ipaddress: there may be 100,000.

    Raises ValueError, and KeyError if a part is not a number from 0 to 255 in its shortest form.
    """
    first, second, third, fourth = address.split(".")
    number = OCTETS[first] << 24 | OCTETS[second] << 16 | OCTETS[third] << 8 | OCTETS[fourth]
    if length > IPV4_WIDTH:
        raise ValueError(length)
    behind = IPV4_WIDTH - length
    return IPv4Network((number >> behind << behind, length))


def _refuse(key: str, accepted: str) -> RefusedError:
    return RefusedError(INVALID, f"wg sent a wrong value of {key}: {accepted} is accepted")


def _shown(key: str) -> str:
    return repr(key[:40])


PEER_KEYS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "remove": ("is_removed", _true),
    "update_only": ("is_update", _true),
    "preshared_key": ("preshared_key", _preshared_key),
    "endpoint": ("endpoint", _endpoint),
    "persistent_keepalive_interval": ("keepalive", _number(LARGEST_KEEPALIVE)),
}
DEVICE_KEYS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "listen_port": ("listen_port", _number(LARGEST_PORT)),
    "fwmark": ("fwmark", _mark),
    "replace_peers": ("replaces_peers", _true),
}
"""The field for each word of the interface, and the function that reads it."""
