"""Geneve (RFC 8926): Ethernet frames in UDP, behind a header with options.

We send no options.  Those of others are skipped, but a packet with a critical option is refused, because we know none
(section 3.5).  Control messages, which are not for forwarding, and payloads that are not frames are refused, too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.encap import ethernet
from overlay.encap.encapsulation import Encapsulation, Ends, Layout
from overlay.errors import PacketError
from overlay.wire.ethernet import ETHERNET

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 8926 section 3.4)
# - 1 byte: 2 bits version (0), 6 bits size of the options in units of 4 bytes
# - 1 byte: bit 0 O, a control message; bit 1 C, there are critical options; 6 bits reserved
# - 2 bytes EtherType of the payload, 3 bytes virtual network identifier, 1 byte reserved; the options, then the payload
HEADER = struct.Struct("!BBHI")
VERSION, OPTIONS = 0xC0, 0x3F  # masks of the first byte
CONTROL, CRITICAL = 0x80, 0x40  # of the second; reserved bits are zero when sent, and ignored
ETHERTYPE_FRAME = 0x6558  # Transparent Ethernet Bridging


def header(ends: Ends) -> bytes:
    """Return the header before each frame."""
    return HEADER.pack(0, 0, ETHERTYPE_FRAME, (ends.identifier or 0) << 8)


def find(payload: Buffer) -> tuple[int, int]:
    """Return where the frame in *payload* begins, and its network identifier.

    Raises PacketError, and nothing else, for any bytes.
    """
    if len(payload) < HEADER.size:
        raise PacketError("geneve_short")
    first, flags, kind, word = HEADER.unpack_from(payload)
    start = HEADER.size + (first & OPTIONS) * 4
    if first & VERSION:
        raise PacketError("geneve_version")
    if flags & CONTROL:
        raise PacketError("geneve_control")
    if flags & CRITICAL:
        raise PacketError("geneve_critical")
    if kind != ETHERTYPE_FRAME:
        raise PacketError("geneve_protocol")
    if len(payload) < start + ETHERNET.size:
        raise PacketError("geneve_short")
    return start, word >> 8


ENCAPSULATION = Encapsulation(
    "geneve",
    {4: 20 + 8, 6: 40 + 8},
    ethernet.clear(header, find, mismatch="vni", layout=Layout.GENEVE),
    senders=ethernet.SENDERS,
)
