"""What the agent and the forwarder say to each other: one msgpack array per packet of a SOCK_SEQPACKET pair.

Each message is a frozen value; on the link it is ``[number, field, ...]`` with the number of its class in
``MESSAGES``.  Neither side trusts the other: decode() checks every field and raises PacketError for anything else.
Descriptors travel beside ``Start``, ``SetNode`` and ``Sockets`` (SCM_RIGHTS).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgpack

from overlay.errors import PacketError
from overlay.reasons import REASONS
from overlay.session.constants import Timing
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.addresses import pack_host
from overlay.wire.messages import COOKIE_REPLY, INITIATION, KEY_SIZE, RESPONSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.wire.addresses import Sockaddr

# Ours
MESSAGE_BYTES = 128 * 1024  # the largest message: 500 routes or 20 peers' counters stay far below
ROUTES_PER_MESSAGE = 100  # applied between two batches of packets, in 0.2 ms, so that none waits for a reload
DESCRIPTORS = (
    64  # beside one message: two sockets for each address that a node may bind to, or pools of senders
)
SECONDS = 2.0**40  # and every time, in 35,000 years; so that no sum or product of times is infinite
NUMBERS = 2**63  # every number is below: what sums of them are counted in
ROWS = 100  # peers in one message of counters; the forwarder tells far fewer at once
NOTES, NOTE_CHARACTERS = 32, 500  # what the forwarder could not do, as sentences
HOST_CHARACTERS = 64  # an IPv6 address with the name of an interface
PINGS_WAITING = 256  # in-band pings that wait for an answer at once
REPLACED_TIME = 10.0  # seconds for which a replaced socket is read: until peers have heard from the new one
OWN = 0  # the peer number of this node in the routes: its own subnets


@dataclass(frozen=True, slots=True)
class Start:
    """The agent's first message, with the tun beside it.  *times* are the fields of Timing, in their order.

    *ciphers* are those of bulk units, best first; without any, no unit is sent or taken.  With *is_tap* the device
    carries Ethernet frames.
    """

    public_key: bytes
    mtu: int
    joins_udp: bool
    segments_udp: bool
    times: list[float]
    ciphers: list[int] = dataclasses.field(default_factory=list)
    is_tap: bool = False


@dataclass(frozen=True, slots=True)
class Sockets:
    """Sockets to use from now on for *encapsulation*, one for each of *families*, beside it.

    *port* is their UDP port, 0 where there are none; *ports* are those of each where some have others.  *roles* are the values of Role and *protocols* the IP protocols
    of each; without any, all are UDP sockets that receive and send.  Those in use before that are not among them are
    read for REPLACED_TIME and then closed.
    """

    families: list[int]
    port: int
    encapsulation: str = "wireguard"
    roles: list[int] = dataclasses.field(default_factory=list)
    protocols: list[int] = dataclasses.field(default_factory=list)
    ports: list[int] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SetNode:
    """The interface's MTU and this node's own overlay addresses, 4 or 16 bytes each: ICMP errors come from them.

    With *has_icmp* a raw socket for those of IPv4 is beside it, and behind that one for each of *families* by which
    the kernel is asked for the MTU of a path.  With *inherits_ttl* what is in the clear has the TTL of the packet
    inside in its outer header too.  *macs* are the Ethernet addresses that are here and nowhere else, that of a tap
    first.
    """

    mtu: int
    has_icmp: bool
    addresses: list[bytes]
    inherits_ttl: bool = False
    macs: list[bytes] = dataclasses.field(default_factory=list)
    families: list[int] = dataclasses.field(default_factory=list)
    stations: int = 4096  # Ethernet addresses that are learnt at one place


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Make or change a peer, whose *encapsulation* never changes.  *keepalive* is in seconds, 0 for none.

    *sources* are prefixes beside its own from which packets may come in the clear.  *identifier*, *own_mac*, *mac*,
    *has_checksum* and *has_sequence* are those of Ends.  *macs* are the Ethernet addresses that are there and nowhere else; the first is that of
    *addresses*, its own on the overlay.
    """

    peer: int
    keepalive: float
    encapsulation: str = "wireguard"
    sources: list[tuple[bytes, int]] = dataclasses.field(default_factory=list)
    identifier: int | None = None
    own_mac: bytes = bytes(6)
    mac: bytes = bytes(6)
    has_checksum: bool = False
    has_sequence: bool = False
    macs: list[bytes] = dataclasses.field(default_factory=list)
    addresses: list[bytes] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Forget a peer, its keys and what is staged for it."""

    peer: int


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Where a peer is to be reached from now on, and why: ``configuration`` or ``dns``."""

    peer: int
    endpoint: Sockaddr
    cause: str


@dataclass(frozen=True, slots=True)
class Routes:
    """A piece of a table change: prefixes to add as [packed, length, peer], to remove as [packed, length].

    Nothing is in force until the piece with *is_last*, and then all of it.
    """

    add: list[tuple[bytes, int, int]]
    remove: list[tuple[bytes, int]]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """The table is complete: read the tun from now on.  Packets that came before wait in its queue."""


@dataclass(frozen=True, slots=True)
class Handled:
    """The agent is done with *count* handshake messages: so the forwarder knows how busy it is."""

    count: int


@dataclass(frozen=True, slots=True)
class RenewSources:
    """Addresses or routes of the host changed: forget which local address each peer was answered from.

    With *has_moved* the host may be elsewhere for its peers, and those with a session are told by a keepalive.
    """

    has_moved: bool = False


@dataclass(frozen=True, slots=True)
class AskCounters:
    """Send the counters of all peers; *serial* comes back with them."""

    serial: int


@dataclass(frozen=True, slots=True)
class PingPeer:
    """Send an in-band ping to *peer*; *identifier* comes back with the answer, in ``Ponged``."""

    peer: int
    identifier: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The forwarder has begun.  *notes* are sentences on what it could not do."""

    notes: list[str]


@dataclass(frozen=True, slots=True)
class Handshake:
    """A handshake message whose size and mac1 are right, and mac2 under load; or one of a few for another public key."""

    datagram: bytes
    source: Sockaddr


@dataclass(frozen=True, slots=True)
class Wanted:
    """There is something to send to *peer* and no keypair fresh enough for it; with *is_idle* only a keepalive."""

    peer: int
    is_idle: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The first message under a keypair that we made as responder came in: the peer has it too."""

    peer: int
    local_index: int


@dataclass(frozen=True, slots=True)
class Retired:
    """The forwarder has forgotten the keypair of *local_index*."""

    local_index: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Authenticated messages of *peer* came from new addresses: *endpoint* is the last, *before* that one before it.

    Of many moves in a second this tells the last, and *count* how many there were.
    """

    peer: int
    endpoint: Sockaddr
    count: int = 1
    before: Sockaddr | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """Packets were sent to *peer*, and nothing has come from it for so long that it must be gone; or that *is_over*."""

    peer: int
    is_over: bool


@dataclass(frozen=True, slots=True)
class Ponged:
    """The ping *identifier* was answered after *seconds*; None if *peer* is not known to answer any, and got none."""

    peer: int
    identifier: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """What was counted for one peer.  Bytes are UDP payload bytes of all message types."""

    peer: int
    endpoint: Sockaddr | None
    tx_bytes: int
    rx_bytes: int
    tx_packets: int
    rx_packets: int
    last_received: float
    drops: dict[str, int]
    tx_units: int = 0  # bulk units sent
    rx_units: int = 0  # and opened
    # The largest packet of which a probe or the kernel says that it reaches the peer; 0 if neither
    path_mtu: int = 0
    learnt_macs: int = 0  # Ethernet addresses that were learnt there


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of some peers; with *is_last* all have been told.  *drops* are those of no peer."""

    serial: int
    peers: list[PeerCounters]
    drops: dict[str, int]
    is_last: bool


Command: TypeAlias = (
    Start | Sockets | SetNode | SetPeer | RemovePeer | SetEndpoint | Routes | Begin | Handled | RenewSources
    | AskCounters | PingPeer | Transmit | InstallKeypair | Wipe | GiveUp
)  # fmt: skip
"""What the agent tells the forwarder."""

Report: TypeAlias = Ready | Handshake | Wanted | Confirmed | Retired | Moved | Silence | Ponged | Counters
"""What the forwarder tells the agent."""

MESSAGES: tuple[type, ...] = (
    Start, Sockets, SetNode, SetPeer, RemovePeer, SetEndpoint, Routes, Begin, Handled, RenewSources, AskCounters,
    PingPeer, Transmit, InstallKeypair, Wipe, GiveUp,
    Ready, Handshake, Wanted, Confirmed, Retired, Moved, Silence, Ponged, Counters,
)  # fmt: skip
_NUMBERS = {cls: number for number, cls in enumerate(MESSAGES)}


def encode(message: Command | Report) -> bytes:
    """Return the bytes that decode() reads back into an equal value."""
    fields = [getattr(message, name) for name in _FIELDS[type(message)]]
    packed: bytes = msgpack.packb([_NUMBERS[type(message)], *fields], default=_plain)
    return packed


def decode(data: bytes | memoryview, longest: int = MESSAGE_BYTES) -> Command | Report:
    """Read one message.  Raises PacketError ``link``, and nothing else, for any bytes.

    No list in it is longer than *longest*.  What reads lists makes room for as many items as each says it has, also
    for lists in lists a thousand deep, before it looks for the first.
    """
    try:
        parts = msgpack.unpackb(
            data,
            use_list=True,
            strict_map_key=False,
            max_ext_len=0,
            max_array_len=longest,
            max_map_len=len(REASONS),
        )
    except (
        ValueError,
        TypeError,
        msgpack.UnpackException,
        RecursionError,
    ):  # a TypeError for a list as a key
        raise PacketError("link") from None
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int:
        raise PacketError("link")
    if not 0 <= parts[0] < len(MESSAGES):
        raise PacketError("link")
    value: Command | Report = _make(MESSAGES[parts[0]], parts[1:])
    return value


def _plain(value: object) -> object:
    if isinstance(value, PeerCounters):
        return [getattr(value, name) for name in _FIELDS[PeerCounters]]
    raise TypeError(type(value).__name__)


def _make(cls: type, values: list[Any]) -> Any:
    names = _FIELDS[cls]
    if len(values) != len(names):
        raise PacketError("link")
    checks = _CHECKS[cls]
    return cls(*[check(value) for check, value in zip(checks, values, strict=True)])


def _exactly(*types: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in types:
            raise PacketError("link")
        return value

    return check


def _listed(check: Callable[[Any], Any], most: int | None = None) -> Callable[[Any], Any]:
    def check_all(value: Any) -> Any:
        if type(value) is not list or (most is not None and len(value) > most):
            raise PacketError("link")
        return [check(item) for item in value]

    return check_all


def _row(*checks: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check_row(value: Any) -> Any:
        if type(value) is not list or len(value) != len(checks):
            raise PacketError("link")
        return tuple(check(item) for check, item in zip(checks, value, strict=True))

    return check_row


def _sockaddr(value: Any) -> Sockaddr:
    if type(value) is not list or len(value) not in {2, 4}:
        raise PacketError("link")
    host, port, *rest = value
    if not all(type(number) is int and 0 <= number < 2**32 for number in (port, *rest)) or port > 0xFFFF:
        raise PacketError("link")
    if type(host) is not str or len(host) > HOST_CHARACTERS or not host.isprintable():
        raise PacketError("link")
    address: Sockaddr = (host, port, *rest)
    try:
        pack_host(address)
    except ValueError:
        raise PacketError("link") from None
    return address


def _counts(value: Any) -> dict[str, int]:
    """Accept what was dropped by reason.  The reasons are told to people, so they are those that the registry knows."""
    if type(value) is not dict or len(value) > len(REASONS):
        raise PacketError("link")
    for reason, count in value.items():
        if type(reason) is not str or reason not in REASONS:
            raise PacketError("link")
        _number(count)
    return value


def _sentence(value: Any) -> str:
    if type(value) is not str or len(value) > NOTE_CHARACTERS or not value.isprintable():
        raise PacketError("link")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < NUMBERS:
        raise PacketError("link")
    return value


def _between(least: int, most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not least <= _number(value) <= most:
            raise PacketError("link")
        return value

    return check


def _seconds(value: Any) -> float:
    if type(value) not in {float, int} or not 0 <= value < SECONDS:
        raise PacketError("link")
    number: float = value
    return number


def _times(value: Any) -> list[float]:
    if type(value) is not list or len(value) != len(dataclasses.fields(Timing)):
        raise PacketError("link")
    return [_seconds(item) for item in value]


def _sized(*sizes: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not bytes or len(value) not in sizes:
            raise PacketError("link")
        return value

    return check


def _prefixes(*after: Callable[[Any], Any]) -> Callable[[Any], Any]:
    check_row = _row(_sized(4, 16), _number, *after)

    def check(value: Any) -> Any:
        rows = _listed(check_row)(value)
        if any(row[1] > len(row[0]) * 8 for row in rows):
            raise PacketError("link")
        return rows

    return check


_KEY = _sized(KEY_SIZE)
_INDEX = _between(0, 2**32 - 1)
_FIELDS = {cls: [item.name for item in dataclasses.fields(cls)] for cls in (*MESSAGES, PeerCounters)}
_BY_ANNOTATION: dict[str, Callable[[Any], Any]] = {
    "int": _number,
    "int | None": lambda value: None if value is None else _between(0, 2**32 - 1)(value),
    "float": _seconds,
    "float | None": lambda value: None if value is None else _seconds(value),
    "bool": _exactly(bool),
    "str": _exactly(str),
    "bytes": _exactly(bytes),
    "Sockaddr": _sockaddr,
    "Sockaddr | None": lambda value: None if value is None else _sockaddr(value),
    "dict[str, int]": _counts,
    "list[int]": _listed(_number),
    "list[str]": _listed(_exactly(str)),
    "list[tuple[bytes, int, int]]": _prefixes(_number),
    "list[tuple[bytes, int]]": _prefixes(),
    "list[PeerCounters]": _listed(
        lambda value: _make(PeerCounters, value if type(value) is list else []), ROWS
    ),
}
# Fields of which the type does not tell what is right.
_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "notes": _listed(_sentence, NOTES),
    "datagram": _sized(INITIATION.size, RESPONSE.size, COOKIE_REPLY.size),
    "public_key": _KEY,
    "send_key": _KEY,
    "receive_key": _KEY,
    "local_index": _INDEX,
    "remote_index": _INDEX,
    "mtu": _between(1, 0xFFFF),
    "port": _between(0, 0xFFFF),
    "ports": _listed(_between(0, 0xFFFF)),
    "stations": _between(1, 1_000_000),
    "own_mac": _sized(6),
    "mac": _sized(6),
    "macs": _listed(_sized(6)),
    "times": _times,
    "addresses": _listed(_sized(4, 16)),
    "unit_keys": _listed(_row(_between(0, 0xFF), _KEY, _KEY)),
}
_CHECKS = {
    cls: [_BY_NAME.get(item.name) or _BY_ANNOTATION[str(item.type)] for item in dataclasses.fields(cls)]
    for cls in (*MESSAGES, PeerCounters)
}
