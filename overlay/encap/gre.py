"""Generic routing encapsulation (RFC 2784) with the key and the sequence number of RFC 2890.

The header, big endian:

- 2 bytes: bit 0 C, bit 2 K, bit 3 S; bits 1, 4 and 5 zero, bits 6 to 12 ignored; bits 13 to 15 version 0
- 2 bytes EtherType of the packet: 0x0800 IPv4, 0x86DD IPv6
- 4 bytes with C: checksum of header and packet, 2 bytes that are ignored
- 4 bytes with K: key
- 4 bytes with S: sequence number

We send a key, a checksum and a sequence number if they are configured.  We accept a checksum and a sequence number
whether configured or not, but only the configured key, or none if none is configured.  A checksum must be right, and a
packet whose number is not above the last is dropped (RFC 2890 section 2.2); no packet is kept back to wait for a
missing one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Encapsulation, Ends, Layout, Stripped
from overlay.errors import PacketError
from overlay.wire.ethernet import ETHERTYPES
from overlay.wire.ip import checksum, packet_length
from overlay.wire.partial import may_be_partial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.ip import Buffer

# Specification (RFC 2784 section 2, RFC 2890 section 2)
PROTOCOL_GRE = 47
HEADER = struct.Struct(">HH")
CHECKSUM, KEY, SEQUENCE = 0x8000, 0x2000, 0x1000
REFUSED = (
    0x4C00  # bits 1, 4 and 5, of RFC 1701: routing, strict source route and the first of recursion control
)
VERSION = 0x0007
FIELD_SIZE = 4  # of each of checksum, key and sequence number

# Ours
ROUNDS, QUARTER = 8, 2**30  # the first numbers, and the steps between them


def prefix(ends: Ends) -> Mapping[int, bytes]:
    """Return the header before a packet of each version, with the tunnel's key if it has one.

    Checksum and sequence number are zero; the finisher writes them.
    """
    flags, fields = 0, b""
    if ends.has_checksum:
        flags, fields = flags | CHECKSUM, fields + bytes(FIELD_SIZE)
    if ends.identifier is not None:
        flags, fields = flags | KEY, fields + ends.identifier.to_bytes(FIELD_SIZE, "big")
    if ends.has_sequence:
        flags, fields = flags | SEQUENCE, fields + bytes(FIELD_SIZE)
    return {version: HEADER.pack(flags, ethertype) + fields for version, ethertype in ETHERTYPES.items()}


class Finisher:
    """Writes sequence numbers and checksums into the payloads of one tunnel.

    The numbers are 0, 1, 2 and so on (RFC 2890 section 2.2), after 0, 2**30, 2**31 and 3 * 2**30, twice in this order.
    A far end remembers the last number from before our restart, and accepts only higher ones: up to 2**31 ahead,
    because numbers wrap around.  Of three numbers in such steps one is always accepted, and then so are all that
    follow; without them, the far end might accept none for days.  The second round is in case some of the first are
    lost.
    """

    __slots__ = ("_has_checksum", "_number_at")

    def __init__(self, ends: Ends) -> None:
        self._has_checksum = ends.has_checksum
        before = HEADER.size + FIELD_SIZE * (ends.has_checksum + (ends.identifier is not None))
        self._number_at = before if ends.has_sequence else 0

    def __call__(self, payload: memoryview, sent: int) -> None:
        """Finish *payload*, which begins with the prefix and whose packet will not change; *sent* payloads came before
        it.
        """
        at = self._number_at
        if at:
            number = sent * QUARTER if sent < ROUNDS else sent - ROUNDS
            payload[at : at + FIELD_SIZE] = (number & 0xFFFFFFFF).to_bytes(FIELD_SIZE, "big")
        if self._has_checksum:
            payload[HEADER.size : HEADER.size + 2] = checksum(payload).to_bytes(2, "big")


def finisher(ends: Ends) -> Finisher | None:
    """Return what finishes payloads of a tunnel with *ends*; None if there is nothing to finish."""
    return Finisher(ends) if ends.has_checksum or ends.has_sequence else None


def strip(payload: Buffer) -> Stripped:
    """Return where the packet in *payload* begins and ends, and its key.

    Raises PacketError, and nothing else, for any bytes.
    """
    flags, ethertype, at = _read(payload)
    if flags & CHECKSUM and checksum(payload) and not _is_vouched_for(payload, at):
        raise PacketError("gre_checksum")
    key = None
    if flags & KEY:
        before = HEADER.size + FIELD_SIZE * bool(flags & CHECKSUM)
        key = int.from_bytes(payload[before : before + FIELD_SIZE], "big")
    packet = payload[at:]
    length = packet_length(packet)
    if ETHERTYPES[packet[0] >> 4] != ethertype:
        raise PacketError("gre_protocol")
    return Stripped(at, at + length, key)


def sequence(payload: Buffer) -> int | None:
    """Return the sequence number of a payload that strip() accepts; None if it has none."""
    flags, _, at = _read(payload)
    return int.from_bytes(payload[at - FIELD_SIZE : at], "big") if flags & SEQUENCE else None


def _is_vouched_for(payload: Buffer, at: int) -> bool:
    """Return whether a kernel vouches for *payload*, whose packet begins at *at*, because it left the checksum to its
    network card.

    The card fills in this checksum if it is zero; or the packet's own checksum is partial, and this one is computed as
    if it were complete.  Segments that a kernel has checked and merged have the header of the first.
    """
    if payload[HEADER.size : HEADER.size + 2] == b"\0\0":
        return True
    try:
        packet = payload[at:]
        return may_be_partial(packet[: packet_length(packet)])
    except PacketError:
        return False


def _read(payload: Buffer) -> tuple[int, int, int]:
    """Return flags, EtherType and size of the header.  Raises PacketError."""
    if len(payload) < HEADER.size:
        raise PacketError("gre_short")
    flags, ethertype = HEADER.unpack_from(payload)
    if flags & VERSION:
        raise PacketError("gre_version")
    if flags & REFUSED:
        raise PacketError("gre_flags")
    if ethertype not in ETHERTYPES.values():
        raise PacketError("gre_protocol")
    size = HEADER.size + FIELD_SIZE * sum(bool(flags & bit) for bit in (CHECKSUM, KEY, SEQUENCE))
    if len(payload) < size:
        raise PacketError("gre_short")
    return flags, ethertype, size


ENCAPSULATION = Encapsulation(
    "gre",
    {4: 20, 6: 40},
    Clear(
        prefix,
        strip,
        mismatch="gre_key",
        sequence=sequence,
        late="gre_sequence",
        finisher=finisher,
        layout=Layout.GRE,
    ),
    dict.fromkeys((4, 6), PROTOCOL_GRE),
)
