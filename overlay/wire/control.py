"""In-band control messages between two agents of this project, inside transport messages.

A transport payload whose first byte has the upper nibble 4 or 6 is an IP packet.  One with 9 is a control message:

- one msgpack array (specification of msgpack, format ``fixarray``) of two entries: the number of the kind, and a map
  from short names to values; both at most 15 entries long, and nested at most MAXIMUM_DEPTH deep
- zeros to the end of the payload, as WireGuard pads

Unknown kinds and names are ignored, so that versions may differ.  Other WireGuard implementations take such a payload
for a malformed packet and drop it.

kind 0, hello: what the sender of the hello can receive under this keypair

    version     1
    ciphers     numbers of the ciphers it opens units with, best first (see ``bulk``)
    unit        most bytes of a sealed unit
    fragments   most fragments of a unit
    packet      most bytes of the packet that a segment of a unit becomes, headers included
    heard       true once it has received a hello under this keypair; if false, the receiver answers with its own
    pings       true if it answers pings; absent is false
    probes      true if it answers probes; absent is false
    lanes       lanes that it has (see ``lanes``); absent is 1

kind 1, report: what became of the units that the other side sent under this keypair, counted since its beginning

    newest      the counter below which the report covers all units; those above it may still arrive
    units       units opened below ``newest``; the others are missing
    datagrams   fragments of all units opened
    missing     fragments that never arrived, of units given up incomplete

kind 2, ping: a request for a pong.  It is sent only under a keypair under which a hello with ``pings`` was received:
when an operator asks for it, even if there is no traffic, in which case it may start a handshake as a packet would; and
a few times every ten seconds while packets pass in both directions, to measure round trip and loss

    id          a number below 2^64 that its sender has chosen at random

kind 3, pong: the answer to a ping, under the keypair of the ping

    id          that of the ping

kind 4, probe: a request for a ``probed``, padded with zeros to the size that is being tested.  Its datagram must not be
fragmented on the way.  It is sent only under a keypair under which a hello with ``probes`` was received, and only while
packets flow or a search is unfinished (RFC 8899).  If packets flow, a peer that answered probes under an earlier
keypair is sent a hello just for this.  Under the keypair of a lane it asks whether the lane works

    id          a number below 2^64, different for each probe to a peer

kind 5, probed: the answer to a probe, under the keypair of the probe, and no larger than necessary

    id          that of the probe

kind 6, presence: a sign of life of a director of virtual services.  It is sent to the other directors several times a
second, and to everybody now and then.  It is for the agent, which ignores it from nodes that are not directors of that
group

    group       the CRC-32 of the directors' names, in the order of the file, with zero bytes between them
    active      true if the sender is the active director of the group's services
    gone        the positions, from 0, of directors that it has not heard from lately; empty unless it is active

Directors of services send the next four to each other; from anyone else they are ignored.  ``service_control``
describes their rows.  ``group`` is that of presence; if every node is a director, it is the CRC-32 of nothing

kind 7, settings: settings made by hand for servers; the newest for each applies.  It is repeated until it is
acknowledged

    group       see above
    id          a number below 2^64 that the answer repeats, or 0 if no answer is wanted
    rows        settings

kind 8, settings heard: the answer to settings

    group, id   those of the settings

kind 9, standings: the state of the servers of the group's services as seen by the sender, every few seconds and at
changes

    group       see above
    settings    a digest of all settings of the group that apply; a director whose own digest differs sends its settings
    rows        some of the standings; further messages have the others

kind 10, flows: connections that the sender balances; it is for the forwarder

    service     the CRC-32 of its name
    size        of the addresses in the rows, 4 or 16 bytes
    rows        flows
    wants       true if the sender has restarted and asks for all flows
    complete    true once all flows have been sent to those that asked for them

kind 11, view asked: a request for what the receiver's peers file says about both ends, when an operator asks for it.
It is for the agent, as is its answer

    id          a number below 2^64 that its sender has chosen

kind 12, view: the answer to view asked.  ``views`` describes prefixes

    id          that of the request
    mine        prefixes of the sender of the view, at most 15
    yours       prefixes of the receiver, at most 15
    more        true if the receiver has more

The sender of a ping remembers when it was sent, and under which keypair: the round trip is the time until the pong with
its ``id`` arrives under the same keypair, and any other pong is dropped.  The receiver of a ping or a probe answers at
once or, if there are too many, not at all.  None of the four requires a keepalive in return, and a pong, a probe or a
probed does not start a handshake either.  A probe without an answer shows that its size does not pass only if smaller
ones, sent at the same time, are answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgpack

from overlay.errors import PacketError
from overlay.wire.bulk import CIPHERS, MAXIMUM_FRAGMENTS, MAXIMUM_PACKET, MAXIMUM_SEALED
from overlay.wire.lanes import LANES
from overlay.wire.messages import PADDING
from overlay.wire.service_control import FlowsTold, SettingsHeard, SettingsTold, StandingsTold
from overlay.wire.service_control import number as _number
from overlay.wire.views import ViewAsked, ViewTold

if TYPE_CHECKING:
    from collections.abc import Callable

# Specification (this document)
KIND_HELLO, KIND_REPORT, KIND_PING, KIND_PONG, KIND_PROBE, KIND_PROBED, KIND_PRESENCE = range(7)
KIND_SETTINGS, KIND_SETTINGS_HEARD, KIND_STANDINGS, KIND_FLOWS = range(7, 11)
KIND_VIEW_ASKED, KIND_VIEW = range(11, 13)
VERSION = 1
FIRST_NIBBLES = (8, 9)  # of a message, in its first byte; the first is reserved for maps
MAXIMUM_ENTRIES = 15
MAXIMUM_DEPTH = 4
MAXIMUM_TEXT = 64  # bytes of one name or string
IDENTIFIER_SIZE = 8  # bytes

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Hello:
    """What a peer can receive.  Limits are clamped to the bounds of the format."""

    ciphers: tuple[int, ...]
    unit: int
    fragments: int
    packet: int
    is_answer: bool  # its sender has received a hello of this node
    answers_pings: bool = False
    answers_probes: bool = False
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What happened to the units that a peer was sent."""

    newest: int
    units: int
    datagrams: int
    missing: int


@dataclass(frozen=True, slots=True)
class Ping:
    """A request for the pong with the same *identifier*."""

    identifier: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the ping with *identifier*."""

    identifier: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A request for the answer with the same *identifier*; the sender pads it to the size to test."""

    identifier: int


@dataclass(frozen=True, slots=True)
class Probed:
    """The answer to the probe with *identifier*, whose size therefore passes."""

    identifier: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A sign of life of a director; *gone* are the positions of directors of the *group* that it has not heard from."""

    group: int
    is_active: bool
    gone: tuple[int, ...] = ()


ForAgent: TypeAlias = Presence | SettingsTold | SettingsHeard | StandingsTold | ViewAsked | ViewTold
"""Messages for the agent: the forwarder passes them on."""

Control: TypeAlias = Hello | Report | Ping | Pong | Probe | Probed | FlowsTold | ForAgent


def is_control(payload: Buffer) -> bool:
    """Return whether a payload, which is not empty, is a control message."""
    return payload[0] >> 4 in FIRST_NIBBLES


def is_about_views(payload: Buffer) -> bool:
    """Return whether a control message is one of ``views``, which parse() may still refuse."""
    return len(payload) > 1 and payload[1] in (KIND_VIEW_ASKED, KIND_VIEW)


def parse(payload: Buffer) -> Control | None:
    """Read a control message; None for an unknown kind.

    Raises PacketError ``control``, and nothing else, for a payload that does not have the form above.
    """
    data = bytes(payload)
    reader = msgpack.Unpacker(
        max_buffer_size=max(1, len(data)),
        max_array_len=MAXIMUM_ENTRIES,
        max_map_len=MAXIMUM_ENTRIES,
        max_str_len=MAXIMUM_TEXT,
        max_bin_len=MAXIMUM_TEXT,
        max_ext_len=0,
        strict_map_key=False,
    )
    try:
        reader.feed(data)
        value = reader.unpack()
        end = reader.tell()
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, msgpack.OutOfData):
        raise PacketError("control") from None
    if any(data[end:]) or _depth(value) > MAXIMUM_DEPTH:
        raise PacketError("control")
    if type(value) is dict:
        return None  # the form of a later version
    if type(value) is not list or not value or type(value[0]) is not int:
        raise PacketError("control")
    if value[0] not in _READERS:
        return None
    if len(value) < 2 or type(value[1]) is not dict:
        raise PacketError("control")
    return _READERS[value[0]](value[1])


def build(message: Control) -> bytes:
    """Return the payload that parse() reads back, padded with zeros to a multiple of 16."""
    match message:
        case Hello():
            body = {
                "version": VERSION,
                "ciphers": list(message.ciphers),
                "unit": message.unit,
                "fragments": message.fragments,
                "packet": message.packet,
                "heard": message.is_answer,
                "pings": message.answers_pings,
                "probes": message.answers_probes,
            }
            if message.lanes > 1:  # with one lane the message is the same as in older versions
                body["lanes"] = message.lanes
            packed: bytes = msgpack.packb([KIND_HELLO, body])
        case Report():
            body = {
                "newest": message.newest,
                "units": message.units,
                "datagrams": message.datagrams,
                "missing": message.missing,
            }
            packed = msgpack.packb([KIND_REPORT, body])
        case Ping():
            packed = msgpack.packb([KIND_PING, {"id": message.identifier}])
        case Pong():
            packed = msgpack.packb([KIND_PONG, {"id": message.identifier}])
        case Probe():
            packed = msgpack.packb([KIND_PROBE, {"id": message.identifier}])
        case Probed():
            packed = msgpack.packb([KIND_PROBED, {"id": message.identifier}])
        case Presence():
            body = {"group": message.group, "active": message.is_active, "gone": list(message.gone)}
            packed = msgpack.packb([KIND_PRESENCE, body])
        case SettingsTold():
            packed = msgpack.packb([KIND_SETTINGS, message.body()])
        case SettingsHeard():
            packed = msgpack.packb([KIND_SETTINGS_HEARD, message.body()])
        case StandingsTold():
            packed = msgpack.packb([KIND_STANDINGS, message.body()])
        case FlowsTold():
            packed = msgpack.packb([KIND_FLOWS, message.body()])
        case ViewAsked():
            packed = msgpack.packb([KIND_VIEW_ASKED, message.body()])
        case ViewTold():
            packed = msgpack.packb([KIND_VIEW, message.body()])
    return packed + bytes(-len(packed) % PADDING)


def _read_hello(body: dict[Any, Any]) -> Hello:
    ciphers = body.get("ciphers")
    if type(ciphers) is not list or not _number(body, "version"):
        raise PacketError("control")
    return Hello(
        ciphers=tuple(number for number in ciphers if type(number) is int and number in CIPHERS),
        unit=min(_number(body, "unit"), MAXIMUM_SEALED),
        fragments=min(_number(body, "fragments"), MAXIMUM_FRAGMENTS),
        packet=min(_number(body, "packet"), MAXIMUM_PACKET),
        is_answer=body.get("heard") is True,
        answers_pings=body.get("pings") is True,
        answers_probes=body.get("probes") is True,
        lanes=min(_number(body, "lanes"), LANES) if "lanes" in body else 1,
    )


def _read_report(body: dict[Any, Any]) -> Report:
    return Report(
        _number(body, "newest"), _number(body, "units"), _number(body, "datagrams"), _number(body, "missing")
    )


def _read_presence(body: dict[Any, Any]) -> Presence:
    gone = body.get("gone", [])
    if type(gone) is not list or any(type(place) is not int or place < 0 for place in gone):
        raise PacketError("control")
    return Presence(_number(body, "group"), body.get("active") is True, tuple(gone))


_READERS: dict[int, Callable[[dict[Any, Any]], Control]] = {
    KIND_HELLO: _read_hello,
    KIND_REPORT: _read_report,
    KIND_PING: lambda body: Ping(_number(body, "id")),
    KIND_PONG: lambda body: Pong(_number(body, "id")),
    KIND_PROBE: lambda body: Probe(_number(body, "id")),
    KIND_PROBED: lambda body: Probed(_number(body, "id")),
    KIND_PRESENCE: _read_presence,
    KIND_SETTINGS: SettingsTold.read,
    KIND_SETTINGS_HEARD: SettingsHeard.read,
    KIND_STANDINGS: StandingsTold.read,
    KIND_FLOWS: FlowsTold.read,
    KIND_VIEW_ASKED: ViewAsked.read,
    KIND_VIEW: ViewTold.read,
}


def _depth(value: object) -> int:
    """Return how deeply *value* is nested, counting no further than one beyond the limit."""
    depth, level = 0, [value]
    while level and depth <= MAXIMUM_DEPTH:
        depth += 1
        inner: list[object] = []
        for item in level:
            if isinstance(item, list):
                inner += item
            elif isinstance(item, dict):
                inner += [*item.keys(), *item.values()]
        level = inner
    return depth
