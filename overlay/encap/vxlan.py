"""VXLAN (RFC 7348): Ethernet frames in UDP."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.encap import ethernet
from overlay.encap.encapsulation import Encapsulation, Ends, Layout
from overlay.errors import PacketError
from overlay.wire.ethernet import ETHERNET

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 7348 section 5)
# - 1 byte flags, 3 bytes reserved, 3 bytes VXLAN network identifier, 1 byte reserved; then the frame
HEADER = struct.Struct("!B3xI")
HAS_VNI = 0x08  # the only flag; reserved bits are zero when sent, and ignored
LEAST_SIZE = HEADER.size + ETHERNET.size


def header(ends: Ends) -> bytes:
    """Return the header before each frame."""
    return HEADER.pack(HAS_VNI, (ends.identifier or 0) << 8)


def find(payload: Buffer) -> tuple[int, int]:
    """Return where the frame in *payload* begins, and its network identifier.

    Raises PacketError, and nothing else, for any bytes.
    """
    if len(payload) < LEAST_SIZE:
        raise PacketError("vxlan_short")
    flags, word = HEADER.unpack_from(payload)
    if not flags & HAS_VNI:
        raise PacketError("vxlan_flags")
    return HEADER.size, word >> 8


ENCAPSULATION = Encapsulation(
    "vxlan",
    {4: 20 + 8, 6: 40 + 8},
    ethernet.clear(header, find, mismatch="vni", layout=Layout.VXLAN),
    senders=ethernet.SENDERS,
)
