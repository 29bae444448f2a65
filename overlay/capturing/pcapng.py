"""Captures in the pcapng format (draft-ietf-opsawg-pcapng), which Wireshark reads.

All numbers are little endian.  A block has its type and total length at the start, and the length again at the end; its
body and each of its options start at multiples of 4 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (section 4; section 3.5 for options)
SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER, VERSION, UNKNOWN_SIZE = 0x1A2B3C4D, (1, 0), -1
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101  # RAW: IPv4 or IPv6, according to the first 4 bits
LAST_OPTION, COMMENT = 0, 1
SECTION_APPLICATION = 4
INTERFACE_NAME, INTERFACE_DESCRIPTION, INTERFACE_RESOLUTION, INTERFACE_FILTER = 2, 3, 9, 11
PACKET_FLAGS = 2
STATISTICS_RECEIVED, STATISTICS_MISSED = 4, 5
INBOUND, OUTBOUND = 1, 2  # of the flags

# Ours
NANOSECONDS = 9  # unit of times: 10 to the power of minus 9
LARGEST_SNAPLEN = 262_144  # tcpdump's
COMMENTS = 4096  # that are remembered: most packets have the comment of an earlier one

_BLOCK = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_SECTION = struct.Struct("<IHHq")
_INTERFACE = struct.Struct("<HHI")
_PACKET = struct.Struct("<IIIIIII")  # block, interface, time in two halves, bytes captured, original bytes
_STATISTICS = struct.Struct("<III")
_OPTION = struct.Struct("<HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured; *filter* is the expression that they match, if any."""

    name: str
    description: str
    link_type: int
    snaplen: int
    filter: str = ""


def section(application: str) -> bytes:
    """Return the header of a capture."""
    body = _SECTION.pack(BYTE_ORDER, *VERSION, UNKNOWN_SIZE)
    return _block(SECTION, body + _options((SECTION_APPLICATION, application.encode())))


def interface(described: Interface) -> bytes:
    """Return the block of an interface; interfaces are numbered from 0 on, in the order of their blocks."""
    options = [
        (INTERFACE_NAME, described.name.encode()),
        (INTERFACE_DESCRIPTION, described.description.encode()),
        (INTERFACE_RESOLUTION, bytes([NANOSECONDS])),
    ]
    if described.filter:
        options.append((INTERFACE_FILTER, b"\0" + described.filter.encode()))  # 0: in libpcap's language
    return _block(INTERFACE, _INTERFACE.pack(described.link_type, 0, described.snaplen) + _options(*options))


def packet(
    number: int, wall_ns: int, data: Buffer, length: int, comment: str = "", *, flags: int = 0
) -> tuple[bytes, Buffer, bytes]:
    """Return the block of a packet of *length* bytes, the first of which are *data*, on the interface *number*.

    It is in three parts, the second of which is *data*: large packets are not copied here.  *wall_ns* is of
    CLOCK_REALTIME, in nanoseconds.
    """
    captured = len(data)
    options = _packet_options(comment, flags)
    size = _PACKET.size + captured + len(_PADDING[captured & 3]) + len(options) + _LENGTH.size
    when = wall_ns >> 32 & 0xFFFFFFFF, wall_ns & 0xFFFFFFFF
    head = _PACKET.pack(PACKET, size, number, *when, captured, length)
    return head, data, _PADDING[captured & 3] + options + _LENGTH.pack(size)


def statistics(number: int, wall_ns: int, received: int, missed: int) -> bytes:
    """Return the block that says how many packets arrived at an interface, and how many of them are missing."""
    head = _STATISTICS.pack(number, wall_ns >> 32 & 0xFFFFFFFF, wall_ns & 0xFFFFFFFF)
    counts = [(STATISTICS_RECEIVED, received), (STATISTICS_MISSED, missed)]
    return _block(STATISTICS, head + _options(*((code, struct.pack("<Q", count)) for code, count in counts)))


def _block(kind: int, body: bytes) -> bytes:
    size = _BLOCK.size + len(body) + _LENGTH.size
    return _BLOCK.pack(kind, size) + body + _LENGTH.pack(size)


@lru_cache(COMMENTS)
def _packet_options(comment: str, flags: int) -> bytes:
    options = []
    if comment:
        options.append((COMMENT, comment.encode()))
    if flags:
        options.append((PACKET_FLAGS, _LENGTH.pack(flags)))
    return _options(*options)


def _options(*options: tuple[int, bytes]) -> bytes:
    if not options:
        return b""
    parts = [
        _OPTION.pack(code, len(value)) + value + _PADDING[len(value) & 3]
        for code, value in ((code, value[:0xFFFF]) for code, value in options)
    ]
    return b"".join(parts) + _OPTION.pack(LAST_OPTION, 0)
