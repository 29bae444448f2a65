"""Messages of the link as bytes: one msgpack array per packet, ``[number, field, ...]``.

The number is the place of the message in ``KINDS``, which also declares for each field what it may hold.  Neither
side trusts the other: decode() checks every field and raises PacketError for anything else.

The two greetings, ``Start`` and ``Ready``, are ``[number, VERSION, field, ...]``.  Their numbers and the place of the
version never change, so that each end can tell that the other is from another release, whatever else is different.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgpack

from overlay.errors import PacketError
from overlay.link.fields import (
    ADDRESS,
    ADDRESSES,
    BYTES,
    CONTROL,
    COUNT,
    DATAGRAM,
    FAMILIES,
    FLAG,
    IDENTIFIER,
    INDEX,
    KEY,
    MAC,
    MACS,
    MTU,
    NAME,
    PEER,
    PORT,
    PORTS,
    UINT8,
    between,
    counts,
    listed,
    number,
    number_of_route,
    optional,
    prefixes,
    row,
    row_list,
    seconds,
    sentence,
    short,
    sockaddr,
)
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.link.fields import Kind

# Ours
VERSION = 2  # of the messages and their bytes: the files of the forwarder may be newer than the running agent
MESSAGE_BYTES = 128 * 1024  # the largest message: 500 routes or 20 peers' counters stay far below
# Beside one message: two sockets for each address that a node may bind to, or pools of senders
DESCRIPTORS = 64
ROWS = 100  # peers in one message of counters; the forwarder tells far fewer at once
NOTES = 32  # what the forwarder could not do, as sentences
STATIONS = 1_000_000  # Ethernet addresses that may be learnt at one place


class OtherVersionError(PacketError):
    """A greeting from an end that speaks *version* of the link, which is not VERSION."""

    def __init__(self, version: int) -> None:
        super().__init__("link")
        self.version = version


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
    if number(found[0]) != VERSION:
        raise OtherVersionError(found[0])


def _plain(value: object) -> object:
    return [getattr(value, name) for name in ROW_KINDS[type(value)]]


def _make(cls: type, values: list[Any]) -> Any:
    checks = _CHECKS[cls]
    if len(values) != len(checks):
        raise PacketError("link")
    return cls(*[check(value) for check, value in zip(checks, values, strict=True)])


def _value(cls: type) -> Kind:
    """Return the kind of a value inside a message, which is the list of its fields."""
    return lambda value: _make(cls, value if type(value) is list else [])


def _times(value: Any) -> list[float]:
    if type(value) is not list or len(value) != len(dataclasses.fields(Timing)):
        raise PacketError("link")
    return [seconds(item) for item in value]


ROW_KINDS: Mapping[type, Mapping[str, Kind]] = {
    SocketRow: {"family": number, "port": PORT, "role": UINT8, "protocol": UINT8},
    PeerCounters: {
        "peer": PEER,
        "endpoint": optional(sockaddr),
        "tx_bytes": BYTES,
        "rx_bytes": BYTES,
        "tx_packets": COUNT,
        "rx_packets": COUNT,
        "last_received": seconds,
        "drops": counts,
        "tx_units": COUNT,
        "rx_units": COUNT,
        "path_mtu": BYTES,
        "learnt_macs": COUNT,
    },
    ServerRow: {
        "server": IDENTIFIER,
        "key": short,
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
        "peers": listed(PEER),
        "protocols": listed(UINT8),
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
        "idle": seconds,
        "left": seconds,
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
        "ciphers": listed(number),
        "is_tap": FLAG,
    },
    Ready: {"notes": listed(sentence, NOTES)},
    Sockets: {"encapsulation": NAME, "rows": listed(_value(SocketRow))},
    SetNode: {
        "mtu": MTU,
        "has_icmp": FLAG,
        "addresses": ADDRESSES,
        "inherits_ttl": FLAG,
        "macs": MACS,
        "families": FAMILIES,
        "stations": between(1, STATIONS),
    },
    SetPeer: {
        "peer": PEER,
        "keepalive": seconds,
        "encapsulation": NAME,
        "sources": prefixes(),
        "identifier": optional(INDEX),
        "own_mac": MAC,
        "mac": MAC,
        "has_checksum": FLAG,
        "has_sequence": FLAG,
        "macs": MACS,
        "addresses": ADDRESSES,
    },
    RemovePeer: {"peer": PEER},
    SetEndpoint: {"peer": PEER, "endpoint": sockaddr, "cause": NAME},
    Routes: {"add": prefixes(number_of_route), "remove": prefixes(), "is_last": FLAG},
    Begin: {},
    Handled: {"count": COUNT},
    RenewSources: {"has_moved": FLAG},
    AskCounters: {"serial": IDENTIFIER},
    PingPeer: {"peer": PEER, "identifier": IDENTIFIER},
    SendControl: {"peers": listed(PEER), "payload": CONTROL},
    SetService: {
        "service": IDENTIFIER,
        "name": short,
        "addresses": ADDRESSES,
        "protocols": listed(UINT8),
        "ports": PORTS,
        "scheduler": short,
        "persistence": seconds,
        "prefix4": between(0, 32),
        "prefix6": between(0, 128),
        "one_packet": FLAG,
        "idle": row_list(seconds, 3),
        "limits": row_list(COUNT, 3),
    },
    SetServers: {
        "service": IDENTIFIER,
        "rows": listed(_value(ServerRow)),
        "sorry": listed(_value(ServerRow), 1),
        "is_sorry": FLAG,
    },
    RemoveService: {"service": IDENTIFIER},
    SetPermits: {"rows": listed(_value(PermitRow))},
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
    Transmit: {"peer": PEER, "datagram": DATAGRAM, "endpoint": optional(sockaddr), "renew_source": FLAG},
    InstallKeypair: {
        "peer": PEER,
        "local_index": INDEX,
        "remote_index": INDEX,
        "send_key": KEY,
        "receive_key": KEY,
        "is_initiator": FLAG,
        "initiated": seconds,
        "created": seconds,
        "endpoint": sockaddr,
        "unit_keys": listed(row(UINT8, KEY, KEY)),
    },
    Wipe: {"peer": PEER},
    GiveUp: {"peer": PEER},
    Handshake: {"datagram": DATAGRAM, "source": sockaddr},
    Wanted: {"peer": PEER, "is_idle": FLAG},
    Confirmed: {"peer": PEER, "local_index": INDEX},
    Retired: {"local_index": INDEX},
    Moved: {"peer": PEER, "endpoint": sockaddr, "count": COUNT, "before": optional(sockaddr)},
    Silence: {"peer": PEER, "is_over": FLAG},
    Ponged: {"peer": PEER, "identifier": IDENTIFIER, "seconds": optional(seconds)},
    ControlReceived: {"peer": PEER, "payload": CONTROL},
    Counters: {
        "serial": IDENTIFIER,
        "peers": listed(_value(PeerCounters), ROWS),
        "drops": counts,
        "is_last": FLAG,
    },
    Pinned: {"serial": IDENTIFIER, "is_done": FLAG},
    ServiceCounters: {
        "serial": IDENTIFIER,
        "servers": listed(_value(ServerCounters), ROWS),
        "drops": counts,
        "is_last": FLAG,
    },
    Flows: {"serial": IDENTIFIER, "rows": listed(_value(FlowRow), ROWS), "is_last": FLAG},
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
