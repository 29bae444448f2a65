"""In-band messages of directors about the services that they share: bodies of the kinds 7 to 10 of ``control``.

Rows have a fixed size, and travel in strings of at most 64 bytes, each filled with whole rows, in a list of at most 15
strings: readers that do not know these kinds can skip them.  All numbers are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from overlay.errors import PacketError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

# Specification (``control``)
STRINGS, STRING_BYTES = 15, 64  # of rows in one message
NUMBERS = 2**64

# A setting:
# - 8 bytes: the server, by its entry in the peers file
# - 8 bytes: when it was made, in milliseconds since 1970
# - 1 byte of flags: 1 it has a weight, 2 it is drained, 4 it is disabled; others are ignored
# - 2 bytes: the weight, otherwise 0
SETTING = struct.Struct("!QQBH")
_HAS_WEIGHT, _IS_DRAINED, _IS_DISABLED = 1, 2, 4

# A standing:
# - 8 bytes: the server, by its entry in the peers file
# - 1 byte: its condition
# - 1 byte of flags: 1 it gets new flows for IPv6 but not for IPv4, 2 the opposite; others are ignored
# - 2 bytes: its effective weight
# - 4 bytes: for how many seconds it has been in that condition
STANDING = struct.Struct("!QBBHI")
_VERSIONS = {4: 1, 6: 2}

# A flow:
# - 1 byte: the IP protocol; 0 for a client, or a network of clients, that keeps its server
# - 1 byte: its state
# - 2 bytes: seconds since its last packet, at most 65535
# - 4 bytes: the CRC-32 of its server's identity
# - 2 bytes each: the client's port, and that of the service
# - 4 or 16 bytes each: the client's address, and that of the service
FLOW = struct.Struct("!BBHIHH")
_HALVES = (4, 16)


class _Row(Protocol):
    def pack(self) -> bytes: ...


RowT = TypeVar("RowT", bound=_Row)


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting by hand for the server of *entry*; None and False leave it to the file and to the checks."""

    entry: int
    stamp: int
    weight: int | None
    is_drained: bool
    is_disabled: bool

    def pack(self) -> bytes:
        flags = _HAS_WEIGHT * (self.weight is not None)
        flags |= _IS_DRAINED * self.is_drained | _IS_DISABLED * self.is_disabled
        return SETTING.pack(self.entry, self.stamp, flags, self.weight or 0)

    @classmethod
    def unpack(cls, row: bytes) -> Self:
        entry, stamp, flags, weight = SETTING.unpack(row)
        is_drained, is_disabled = bool(flags & _IS_DRAINED), bool(flags & _IS_DISABLED)
        return cls(entry, stamp, weight if flags & _HAS_WEIGHT else None, is_drained, is_disabled)


@dataclass(frozen=True, slots=True)
class SettingsTold:
    """Settings by hand that apply; *identifier* is returned in SettingsHeard, unless it is 0."""

    group: int
    identifier: int
    rows: tuple[SettingRow, ...]

    def body(self) -> dict[str, object]:
        return {"group": self.group, "id": self.identifier, "rows": strings(self.rows, SETTING.size)}

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        rows = [SettingRow.unpack(row) for row in _rows(body, "rows", SETTING.size)]
        return cls(number(body, "group"), number(body, "id"), tuple(rows))


@dataclass(frozen=True, slots=True)
class SettingsHeard:
    """The settings with *identifier* were received, and apply there, too."""

    group: int
    identifier: int

    def body(self) -> dict[str, object]:
        return {"group": self.group, "id": self.identifier}

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        return cls(number(body, "group"), number(body, "id"))


@dataclass(frozen=True, slots=True)
class StandingRow:
    """The state of the server of *entry*: *condition* by its position in an enumeration, for *since* seconds.

    Its *weight* does not apply to the IP version *apart*, for which it gets no new flows.
    """

    entry: int
    condition: int
    weight: int
    since: int
    apart: tuple[int, ...] = ()

    def pack(self) -> bytes:
        bits = sum(_VERSIONS[version] for version in self.apart)
        return STANDING.pack(self.entry, self.condition, bits, self.weight, self.since)

    @classmethod
    def unpack(cls, row: bytes) -> Self:
        entry, condition, bits, weight, since = STANDING.unpack(row)
        apart = tuple(version for version, bit in _VERSIONS.items() if bits & bit)
        return cls(entry, condition, weight, since, apart)


@dataclass(frozen=True, slots=True)
class StandingsTold:
    """The state of some servers, and the digest of all *settings* by hand that apply."""

    group: int
    settings: int
    rows: tuple[StandingRow, ...]

    def body(self) -> dict[str, object]:
        rows = strings(self.rows, STANDING.size)
        return {"group": self.group, "settings": self.settings, "rows": rows}

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        rows = [StandingRow.unpack(row) for row in _rows(body, "rows", STANDING.size)]
        return cls(number(body, "group"), number(body, "settings"), tuple(rows))


@dataclass(frozen=True, slots=True)
class SyncedFlow:
    """A flow, or with the *protocol* 0 a client that keeps its server.  Addresses are packed, of one IP version."""

    protocol: int
    state: int
    idle: int
    server: int
    client: bytes
    client_port: int
    address: bytes
    port: int

    def pack(self) -> bytes:
        head = FLOW.pack(self.protocol, self.state, self.idle, self.server, self.client_port, self.port)
        return head + self.client + self.address

    @classmethod
    def unpack(cls, row: bytes) -> Self:
        protocol, state, idle, server, client_port, port = FLOW.unpack_from(row)
        half = (len(row) - FLOW.size) // 2
        client, address = row[FLOW.size : FLOW.size + half], row[FLOW.size + half :]
        return cls(protocol, state, idle, server, client, client_port, address, port)


@dataclass(frozen=True, slots=True)
class FlowsTold:
    """Flows of the *service* whose name has that CRC-32, all of one IP version.

    With *wants_all* the sender asks for all flows; with *is_complete* all that were asked for have been sent.
    """

    service: int
    rows: tuple[SyncedFlow, ...] = ()
    wants_all: bool = False
    is_complete: bool = False

    def body(self) -> dict[str, object]:
        half = len(self.rows[0].client) if self.rows else _HALVES[0]
        names = {"service": self.service, "size": half, "rows": strings(self.rows, FLOW.size + 2 * half)}
        return {**names, "wants": self.wants_all, "complete": self.is_complete}

    @classmethod
    def read(cls, body: dict[Any, Any]) -> Self:
        half = number(body, "size")
        if half not in _HALVES:
            raise PacketError("control")
        rows = [SyncedFlow.unpack(row) for row in _rows(body, "rows", FLOW.size + 2 * half)]
        wants_all, is_complete = body.get("wants") is True, body.get("complete") is True
        return cls(number(body, "service"), tuple(rows), wants_all, is_complete)


def most_rows(size: int) -> int:
    """Return how many rows of *size* bytes fit into one message."""
    return STRINGS * (STRING_BYTES // size)


MOST_SETTINGS, MOST_STANDINGS = most_rows(SETTING.size), most_rows(STANDING.size)


def most_flows(half: int) -> int:
    """Return how many flows with addresses of *half* bytes fit into one message."""
    return most_rows(FLOW.size + 2 * half)


def in_messages(rows: Sequence[RowT], most: int) -> Iterable[tuple[RowT, ...]]:
    """Yield *rows* in parts of at most *most*; one empty part if there are none."""
    for at in range(0, max(1, len(rows)), most):
        yield tuple(rows[at : at + most])


def strings(rows: Sequence[_Row], size: int) -> list[bytes]:
    """Return *rows*, of *size* bytes each, in as few strings as possible."""
    step = STRING_BYTES // size
    packed = [row.pack() for row in rows]
    return [b"".join(packed[at : at + step]) for at in range(0, len(packed), step)]


def _rows(body: dict[Any, Any], name: str, size: int) -> Iterable[bytes]:
    value = body.get(name)
    if type(value) is not list:
        raise PacketError("control")
    for string in value:
        if type(string) is not bytes or not string or len(string) % size:
            raise PacketError("control")
        for at in range(0, len(string), size):
            yield string[at : at + size]


def number(body: dict[Any, Any], name: str) -> int:
    """Return the number *name* of a message.  Raises PacketError ``control`` for anything else."""
    value = body.get(name)
    if type(value) is not int or not 0 <= value < NUMBERS:
        raise PacketError("control")
    return value
