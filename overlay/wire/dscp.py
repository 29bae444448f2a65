"""The DSCP of an IP packet (RFC 2474 section 3): six bits next to the ECN field."""

from __future__ import annotations


def set_dscp(packet: bytearray | memoryview, value: int) -> None:
    """Write the DSCP of a whole IP packet in place; an IPv4 header checksum follows (RFC 1624)."""
    if packet[0] >> 4 == 6:
        packet[0] = 0x60 | value >> 2
        packet[1] = (value & 3) << 6 | packet[1] & 0x3F
        return
    before = packet[1]
    packet[1] = value << 2 | before & 3
    total = (packet[10] << 8 | packet[11]) ^ 0xFFFF
    total += (before ^ 0xFFFF) + packet[1]
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
