"""Completes packets for other tools: fills in checksums, and puts headers before datagrams whose headers the kernel
removed.
"""

from __future__ import annotations

import struct

from overlay.wire.ip import PROTOCOL_UDP, checksum, pseudo_header_sum

# Ours
UNKNOWN_HOST = {4: bytes(4), 16: bytes(16)}
_TTL = 64
_UDP = struct.Struct(">HHHH")


def complete(packet: bytearray | memoryview, csum_start: int, csum_offset: int) -> bool:
    """Fill in a partial checksum in place; return False, with nothing changed, if it points outside *packet*."""
    at = csum_start + csum_offset
    if csum_start < 0 or at + 2 > len(packet):
        return False
    value = checksum(memoryview(packet)[csum_start:])
    if not value and csum_offset == 6:
        value = 0xFFFF  # RFC 768: zero would mean that there is none
    packet[at : at + 2] = value.to_bytes(2, "big")
    return True


def with_headers(
    payload: bytes, length: int, source: tuple[bytes, int] | None, port: int
) -> tuple[bytes, int]:
    """Return a datagram of *length* bytes, the first of which are *payload*, behind made-up headers; and its length.

    Its destination is the unspecified address.
    """
    host, from_port = source or (bytes(4), 0)
    size = len(host)
    to = UNKNOWN_HOST[size]
    total = min(length + _UDP.size, 0xFFFF)
    udp = _UDP.pack(from_port, port, total, 0)
    if length == len(payload):
        value = checksum(udp + payload, pseudo_header_sum(host, to, PROTOCOL_UDP, total)) or 0xFFFF
        udp = udp[:6] + value.to_bytes(2, "big")
    if size == 16:
        header = struct.pack(">IHBB", 6 << 28, total, PROTOCOL_UDP, _TTL) + host + to
    else:
        whole = min(20 + total, 0xFFFF)
        header = struct.pack(">BBHHHBBH", 0x45, 0, whole, 0, 0, _TTL, PROTOCOL_UDP, 0) + host + to
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header + udp + payload, length + len(header) + len(udp)
