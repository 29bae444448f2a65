"""Generic routing encapsulation (RFC 2784) with the key and the sequence number of RFC 2890.

The header, big endian:

- 2 bytes: bit 0 C, bit 2 K, bit 3 S; bits 1, 4 and 5 zero, bits 6 to 12 ignored; bits 13 to 15 version 0
- 2 bytes EtherType of the packet: 0x0800 IPv4, 0x86DD IPv6
- 4 bytes with C: checksum of header and packet, 2 bytes that are ignored
- 4 bytes with K: key
- 4 bytes with S: sequence number

What we send has a key where one is configured, and neither checksum nor sequence number.  What we take may have both:
a checksum must be right, and a packet whose number is not above the last is dropped (RFC 2890 section 2.2); none is
kept back to wait for one that is missing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Encapsulation, Ends, Stripped
from overlay.errors import PacketError
from overlay.wire.ip import checksum, packet_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.ip import Buffer

# Specification (RFC 2784 section 2, RFC 2890 section 2; IANA, IEEE 802 Numbers)
PROTOCOL_GRE = 47
HEADER = struct.Struct(">HH")
CHECKSUM, KEY, SEQUENCE = 0x8000, 0x2000, 0x1000
REFUSED = (
    0x4C00  # bits 1, 4 and 5, of RFC 1701: routing, strict source route and the first of recursion control
)
VERSION = 0x0007
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
FIELD_SIZE = 4  # of each of checksum, key and sequence number


def prefix(ends: Ends) -> Mapping[int, bytes]:
    """Return the header before a packet of each version, with the tunnel's key if it has one."""
    if ends.identifier is None:
        return {version: HEADER.pack(0, ethertype) for version, ethertype in ETHERTYPES.items()}
    key = ends.identifier.to_bytes(FIELD_SIZE, "big")
    return {version: HEADER.pack(KEY, ethertype) + key for version, ethertype in ETHERTYPES.items()}


def strip(payload: Buffer) -> Stripped:
    """Return where the packet in *payload* begins and ends, and its key.

    Raises PacketError, and nothing else, for any bytes.
    """
    flags, ethertype, at = _read(payload)
    if flags & CHECKSUM and checksum(payload):
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
    """Return the sequence number of a payload that strip() takes; None if it has none."""
    flags, _, at = _read(payload)
    return int.from_bytes(payload[at - FIELD_SIZE : at], "big") if flags & SEQUENCE else None


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
    "gre", 0, {4: 20, 6: 40}, Clear(prefix, strip, sequence=sequence), dict.fromkeys((4, 6), PROTOCOL_GRE)
)
