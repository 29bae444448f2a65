"""Messages of the link as bytes: one msgpack array per packet, ``[number, field, ...]``.

The number is the place of the message in ``KINDS``, which also declares for each field what it may hold.  Neither
side trusts the other: decode() checks every field and raises PacketError for anything else.

The two greetings, ``Start`` and ``Ready``, are ``[number, VERSION, field, ...]``.  Their numbers and the place of the
version never change, so that each end can tell that the other is from another release, whatever else is different.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import msgpack

from overlay.errors import PacketError
from overlay.link.messages import (
    AskCounters,
    Begin,
    Command,
    Confirmed,
    ControlReceived,
    Counters,
    Handled,
    Handshake,
    Moved,
    PeerCounters,
    PingPeer,
    Ponged,
    Ready,
    RemovePeer,
    RenewSources,
    Report,
    Retired,
    Routes,
    SendControl,
    SetEndpoint,
    SetNode,
    SetPeer,
    Silence,
    SocketRow,
    Sockets,
    Start,
    Wanted,
)
from overlay.link.service_messages import (
    VIRTUAL,
    AskFlows,
    AskServices,
    FlowRow,
    Flows,
    PermitRow,
    Pin,
    Pinned,
    RemoveService,
    ServerCounters,
    ServerRow,
    ServiceCounters,
    SetPermits,
    SetServers,
    SetService,
    Unpin,
)
from overlay.reasons import REASONS
from overlay.session.constants import Timing
from overlay.session.outputs import GiveUp, InstallKeypair, Transmit, Wipe
from overlay.wire.addresses import pack_host
from overlay.wire.messages import COOKIE_REPLY, INITIATION, KEY_SIZE, RESPONSE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.wire.addresses import Sockaddr

# Ours
VERSION = 2  # of the messages and their bytes: the files of the forwarder may be newer than the running agent
MESSAGE_BYTES = 128 * 1024  # the largest message: 500 routes or 20 peers' counters stay far below
# Beside one message: two sockets for each address that a node may bind to, or pools of senders
DESCRIPTORS = 64
SECONDS = 2.0**40  # every time is below, in 35,000 years; so that no sum or product of times is infinite
NUMBERS = 2**63  # every number is below: what sums of them are counted in
ROWS = 100  # peers in one message of counters; the forwarder tells far fewer at once
NOTES, NOTE_CHARACTERS = 32, 500  # what the forwarder could not do, as sentences
HOST_CHARACTERS = 64  # an IPv6 address with the name of an interface
CONTROL_BYTES = 1200  # of an in-band message, so that every path takes it whole
NAME_CHARACTERS = 200  # of a service, or the identity of a server
STATIONS = 1_000_000  # Ethernet addresses that may be learnt at one place


class OtherVersionError(PacketError):
    """A greeting from an end that speaks *version* of the link, which is not VERSION."""

    def __init__(self, version: int) -> None:
        super().__init__("link")
        self.version = version


Kind: TypeAlias = "Callable[[Any], Any]"
"""What a field may hold: returns the value as the message has it, or raises PacketError."""


def encode(message: Command | Report) -> bytes:
    """Return the bytes that decode() reads back into an equal value."""
    fields = [getattr(message, name) for name in KINDS[type(message)]]
    packed: bytes = msgpack.packb([*_HEADS[type(message)], *fields], default=_plain)
    return packed


def decode(data: bytes | memoryview, longest: int = MESSAGE_BYTES) -> Command | Report:
    """Read one message.  Raises PacketError ``link``, and nothing else, for any bytes.

    It is an OtherVersionError for a greeting of another version.

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
    # A TypeError for a list as a key
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise PacketError("link") from None
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int:
        raise PacketError("link")
    if not 0 <= parts[0] < len(MESSAGES):
        raise PacketError("link")
    cls = MESSAGES[parts[0]]
    if cls in GREETINGS:
        _check_version(parts[1:2])
        del parts[1]
    value: Command | Report = _make(cls, parts[1:])
    return value


def _check_version(found: list[Any]) -> None:
    if not found:
        raise PacketError("link")
    if _number(found[0]) != VERSION:
        raise OtherVersionError(found[0])


def _plain(value: object) -> object:
    return [getattr(value, name) for name in ROW_KINDS[type(value)]]


def _make(cls: type, values: list[Any]) -> Any:
    checks = _CHECKS[cls]
    if len(values) != len(checks):
        raise PacketError("link")
    return cls(*[check(value) for check, value in zip(checks, values, strict=True)])


# Kinds


def _exactly(*types: type) -> Kind:
    def check(value: Any) -> Any:
        if type(value) not in types:
            raise PacketError("link")
        return value

    return check


def _optional(check: Kind) -> Kind:
    return lambda value: None if value is None else check(value)


def _listed(check: Kind, most: int | None = None) -> Kind:
    def check_all(value: Any) -> Any:
        if type(value) is not list or (most is not None and len(value) > most):
            raise PacketError("link")
        return [check(item) for item in value]

    return check_all


def _row(*checks: Kind) -> Kind:
    def check_row(value: Any) -> Any:
        if type(value) is not list or len(value) != len(checks):
            raise PacketError("link")
        return tuple(check(item) for check, item in zip(checks, value, strict=True))

    return check_row


def _row_list(check: Kind, size: int) -> Kind:
    check_row = _row(*[check] * size)
    return lambda value: list(check_row(value))


def _value(cls: type) -> Kind:
    """Return the kind of a value inside a message, which is the list of its fields."""
    return lambda value: _make(cls, value if type(value) is list else [])


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


def _number_of_route(value: Any) -> int:
    return VIRTUAL if value == VIRTUAL and type(value) is int else _number(value)


def _short(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= NAME_CHARACTERS or not value.isprintable():
        raise PacketError("link")
    return value


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


def _up_to(size: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not bytes or not 0 < len(value) <= size:
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


FLAG = _exactly(bool)
NAME = _exactly(str)
PEER = COUNT = BYTES = IDENTIFIER = _number  # without bounds of their own
KEY = _sized(KEY_SIZE)
INDEX = _between(0, 2**32 - 1)
UINT8 = _between(0, 0xFF)
PORT = _between(0, 0xFFFF)
MTU = _between(1, 0xFFFF)
FAMILIES = _listed(_number)
MAC = _sized(6)
MACS = _listed(MAC)
ADDRESS = _sized(4, 16)
PORTS = _listed(_row(PORT, PORT))
UINT32 = _between(0, 2**32 - 1)
ADDRESSES = _listed(_sized(4, 16))
CONTROL = _up_to(CONTROL_BYTES)
DATAGRAM = _sized(INITIATION.size, RESPONSE.size, COOKIE_REPLY.size)

ROW_KINDS: Mapping[type, Mapping[str, Kind]] = {
    SocketRow: {"family": _number, "port": PORT, "role": UINT8, "protocol": UINT8},
    PeerCounters: {
        "peer": PEER,
        "endpoint": _optional(_sockaddr),
        "tx_bytes": BYTES,
        "rx_bytes": BYTES,
        "tx_packets": COUNT,
        "rx_packets": COUNT,
        "last_received": _seconds,
        "drops": _counts,
        "tx_units": COUNT,
        "rx_units": COUNT,
        "path_mtu": BYTES,
        "learnt_macs": COUNT,
    },
    ServerRow: {
        "server": IDENTIFIER,
        "key": _short,
        "peer": PEER,
        "weight": PORT,
        "takes": UINT8,
        "dscp": UINT8,
        "upper": COUNT,
        "lower": COUNT,
    },
    PermitRow: {
        "address": ADDRESS,
        "is_source": FLAG,
        "peers": _listed(PEER),
        "protocols": _listed(UINT8),
        "ports": PORTS,
        "returns": FLAG,
    },
    ServerCounters: {
        "service": IDENTIFIER,
        "server": IDENTIFIER,
        "active": COUNT,
        "inactive": COUNT,
        "connections": COUNT,
        "packets": COUNT,
        "bytes": BYTES,
    },
    FlowRow: {
        "protocol": UINT8,
        "client": ADDRESS,
        "client_port": PORT,
        "address": ADDRESS,
        "port": PORT,
        "state": UINT8,
        "server": IDENTIFIER,
        "idle": _seconds,
        "left": _seconds,
    },
}
"""Values inside messages."""

KINDS: Mapping[type, Mapping[str, Kind]] = {
    Start: {
        "public_key": KEY,
        "mtu": MTU,
        "joins_udp": FLAG,
        "segments_udp": FLAG,
        "times": _times,
        "ciphers": _listed(_number),
        "is_tap": FLAG,
    },
    Ready: {"notes": _listed(_sentence, NOTES)},
    Sockets: {"encapsulation": NAME, "rows": _listed(_value(SocketRow))},
    SetNode: {
        "mtu": MTU,
        "has_icmp": FLAG,
        "addresses": ADDRESSES,
        "inherits_ttl": FLAG,
        "macs": MACS,
        "families": FAMILIES,
        "stations": _between(1, STATIONS),
    },
    SetPeer: {
        "peer": PEER,
        "keepalive": _seconds,
        "encapsulation": NAME,
        "sources": _prefixes(),
        "identifier": _optional(INDEX),
        "own_mac": MAC,
        "mac": MAC,
        "has_checksum": FLAG,
        "has_sequence": FLAG,
        "macs": MACS,
        "addresses": ADDRESSES,
    },
    RemovePeer: {"peer": PEER},
    SetEndpoint: {"peer": PEER, "endpoint": _sockaddr, "cause": NAME},
    Routes: {"add": _prefixes(_number_of_route), "remove": _prefixes(), "is_last": FLAG},
    Begin: {},
    Handled: {"count": COUNT},
    RenewSources: {"has_moved": FLAG},
    AskCounters: {"serial": IDENTIFIER},
    PingPeer: {"peer": PEER, "identifier": IDENTIFIER},
    SendControl: {"peers": _listed(PEER), "payload": CONTROL},
    SetService: {
        "service": IDENTIFIER,
        "name": _short,
        "addresses": ADDRESSES,
        "protocols": _listed(UINT8),
        "ports": PORTS,
        "scheduler": _short,
        "persistence": _seconds,
        "prefix4": _between(0, 32),
        "prefix6": _between(0, 128),
        "one_packet": FLAG,
        "idle": _row_list(_seconds, 3),
        "limits": _row_list(COUNT, 3),
    },
    SetServers: {
        "service": IDENTIFIER,
        "rows": _listed(_value(ServerRow)),
        "sorry": _listed(_value(ServerRow), 1),
        "is_sorry": FLAG,
    },
    RemoveService: {"service": IDENTIFIER},
    SetPermits: {"rows": _listed(_value(PermitRow))},
    Pin: {
        "serial": IDENTIFIER,
        "protocol": UINT8,
        "client": ADDRESS,
        "port": PORT,
        "vip": ADDRESS,
        "vip_port": PORT,
        "service": IDENTIFIER,
        "server": IDENTIFIER,
    },
    Unpin: {"protocol": UINT8, "client": ADDRESS, "port": PORT, "vip": ADDRESS, "vip_port": PORT},
    AskServices: {"serial": IDENTIFIER},
    AskFlows: {"serial": IDENTIFIER, "service": IDENTIFIER},
    Transmit: {"peer": PEER, "datagram": DATAGRAM, "endpoint": _optional(_sockaddr), "renew_source": FLAG},
    InstallKeypair: {
        "peer": PEER,
        "local_index": INDEX,
        "remote_index": INDEX,
        "send_key": KEY,
        "receive_key": KEY,
        "is_initiator": FLAG,
        "initiated": _seconds,
        "created": _seconds,
        "endpoint": _sockaddr,
        "unit_keys": _listed(_row(UINT8, KEY, KEY)),
    },
    Wipe: {"peer": PEER},
    GiveUp: {"peer": PEER},
    Handshake: {"datagram": DATAGRAM, "source": _sockaddr},
    Wanted: {"peer": PEER, "is_idle": FLAG},
    Confirmed: {"peer": PEER, "local_index": INDEX},
    Retired: {"local_index": INDEX},
    Moved: {"peer": PEER, "endpoint": _sockaddr, "count": COUNT, "before": _optional(_sockaddr)},
    Silence: {"peer": PEER, "is_over": FLAG},
    Ponged: {"peer": PEER, "identifier": IDENTIFIER, "seconds": _optional(_seconds)},
    ControlReceived: {"peer": PEER, "payload": CONTROL},
    Counters: {
        "serial": IDENTIFIER,
        "peers": _listed(_value(PeerCounters), ROWS),
        "drops": _counts,
        "is_last": FLAG,
    },
    Pinned: {"serial": IDENTIFIER, "is_done": FLAG},
    ServiceCounters: {
        "serial": IDENTIFIER,
        "servers": _listed(_value(ServerCounters), ROWS),
        "drops": _counts,
        "is_last": FLAG,
    },
    Flows: {"serial": IDENTIFIER, "rows": _listed(_value(FlowRow), ROWS), "is_last": FLAG},
}
"""The messages in the order of their numbers, and what each of their fields may hold."""

MESSAGES = tuple(KINDS)
GREETINGS = (Start, Ready)
assert MESSAGES[: len(GREETINGS)] == GREETINGS
_HEADS = {cls: (number, VERSION) if cls in GREETINGS else (number,) for number, cls in enumerate(MESSAGES)}
_DECLARED = {**KINDS, **ROW_KINDS}
_CHECKS = {cls: tuple(fields.values()) for cls, fields in _DECLARED.items()}
for _cls, _fields in _DECLARED.items():
    assert list(_fields) == [item.name for item in dataclasses.fields(_cls)], _cls
