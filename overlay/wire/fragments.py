"""Fragmenting an IPv4 packet as a router does (RFC 791 section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.wire.ip import DONT_FRAGMENT, IPV4_HEADER_SIZE, checksum

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 791 section 3.1)
MORE_FRAGMENTS = 0x20  # in byte 6, next to DONT_FRAGMENT
COPIED = 0x80  # in an option's type: every fragment has a copy of it
OPTION_END, OPTION_NO_OPERATION = 0, 1
UNIT = 8  # bytes, the unit of fragment offsets


def may_be_cut(packet: Buffer) -> bool:
    """Return whether *packet* is IPv4 and its sender allows fragmentation."""
    return packet[0] >> 4 == 4 and not packet[6] & DONT_FRAGMENT


def cut(packet: Buffer, mtu: int) -> list[bytes]:
    """Return *packet*, a whole IPv4 packet or a fragment, in pieces of at most *mtu* bytes, in order.

    *mtu* is at least 68.  The first piece has all options, the others those with the copied flag.
    """
    size = (packet[0] & 15) * 4
    first = bytes(packet[:size])
    later = _with_options(first, _copied(first[IPV4_HEADER_SIZE:]))
    offset, is_followed = (first[6] & 0x1F) << 8 | first[7], bool(first[6] & MORE_FRAGMENTS)
    pieces: list[bytes] = []
    payload, at = packet[size:], 0
    while at < len(payload) or not pieces:
        header = later if pieces else first
        room = mtu - len(header)
        is_last = len(payload) - at <= room
        data = bytes(payload[at:] if is_last else payload[at : at + room // UNIT * UNIT])
        pieces.append(_piece(header, data, offset + at // UNIT, is_followed or not is_last))
        at += len(data)
    return pieces


def _piece(header: bytes, data: bytes, offset: int, is_followed: bool) -> bytes:
    flags = offset >> 8 | (header[6] & 0x80) | (MORE_FRAGMENTS if is_followed else 0)
    head = bytearray(header)
    head[2:4] = (len(header) + len(data)).to_bytes(2, "big")
    head[6], head[7] = flags, offset & 0xFF
    head[10:12] = b"\0\0"
    head[10:12] = checksum(head).to_bytes(2, "big")
    return bytes(head) + data


def _with_options(header: bytes, options: bytes) -> bytes:
    """Return *header* with *options*, whose length is a multiple of 4, instead of its own."""
    words = (IPV4_HEADER_SIZE + len(options)) // 4
    return bytes([0x40 | words]) + header[1:IPV4_HEADER_SIZE] + options


def _copied(options: bytes) -> bytes:
    """Return those of *options* that every fragment has, padded to a multiple of 4 bytes."""
    kept, at = b"", 0
    while at < len(options) and options[at] != OPTION_END:
        if options[at] == OPTION_NO_OPERATION:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2:
            break  # malformed: the rest cannot be read
        if options[at] & COPIED:
            kept += options[at : at + size]
        at += size
    return kept + bytes(-len(kept) % 4)
