"""The maximum segment size that a TCP SYN announces (RFC 9293 section 3.7.1), made to fit a path."""

from __future__ import annotations

from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_TCP

# Specification (RFC 9293 sections 3.1 and 3.2)
SYN = 0x02
TCP_HEADER_SIZE = 20
FLAGS_OFFSET = 13
CHECKSUM_OFFSET = 16
END_OF_OPTIONS, NO_OPERATION, MAXIMUM_SEGMENT_SIZE = 0, 1, 2
MSS_SIZE = 4  # of the option
IPV6_MINIMUM_MTU = 1280  # RFC 8200 section 5
PROTOCOL_AT = {4: 9, 6: 6}  # where the protocol stands in the IP header

# Ours
LARGEST_SYN = 128  # bytes; a SYN is 60 to 80, so that larger packets need no look
SYN_FLAGS = {4: IPV4_HEADER_SIZE + FLAGS_OFFSET, 6: IPV6_HEADER_SIZE + FLAGS_OFFSET}
"""Where the flags of a TCP packet are, by IP version, without IPv4 options and IPv6 extension headers."""


def clamp_mss(packet: bytearray | memoryview, mtu: int, *, is_partial: bool = False) -> bool:
    """Lower the MSS that *packet* announces to what fits *mtu*, in place, and return whether it was larger.

    Nothing is changed in any other packet than a TCP SYN with such an option right behind a plain IP header.  With
    *is_partial* the checksum covers the pseudo header only, and stays; else it follows (RFC 1624).
    """
    if packet[0] == 0x45:
        start, protocol, is_later = IPV4_HEADER_SIZE, packet[9], packet[6] & 0x1F or packet[7]
    elif packet[0] >> 4 == 6:
        start, protocol, is_later = IPV6_HEADER_SIZE, packet[6], 0
        mtu = max(mtu, IPV6_MINIMUM_MTU)
    else:
        return False
    if protocol != PROTOCOL_TCP or is_later or len(packet) < start + TCP_HEADER_SIZE:
        return False
    if not packet[start + FLAGS_OFFSET] & SYN:
        return False
    at = _mss_at(packet, start)
    most = mtu - start - TCP_HEADER_SIZE
    if not at or (packet[at] << 8 | packet[at + 1]) <= most:
        return False
    if not is_partial:
        _update(packet, start + CHECKSUM_OFFSET, at, most)
    packet[at : at + 2] = most.to_bytes(2, "big")
    return True


def _mss_at(packet: bytearray | memoryview, start: int) -> int:
    """Return where the MSS stands in the TCP header that begins at *start*; 0 if it does not."""
    end = min(start + (packet[start + 12] >> 4) * 4, len(packet))
    at = start + TCP_HEADER_SIZE
    while at + 1 < end and packet[at] != END_OF_OPTIONS:
        if packet[at] == NO_OPERATION:
            at += 1
            continue
        size = packet[at + 1]
        if packet[at] == MAXIMUM_SEGMENT_SIZE:
            return at + 2 if size == MSS_SIZE and at + MSS_SIZE <= end else 0
        if size < 2:
            return 0
        at += size
    return 0


def _update(packet: bytearray | memoryview, field: int, at: int, value: int) -> None:
    """Make the checksum at *field* that of the packet with *value* in the two bytes at *at* (RFC 1624 section 3).

    At an odd place the two bytes belong to two words; the sum takes them with their halves exchanged.
    """
    before, after = packet[at] << 8 | packet[at + 1], value
    if (at - field) & 1:
        before, after = (before & 0xFF) << 8 | before >> 8, (after & 0xFF) << 8 | after >> 8
    total = (packet[field] << 8 | packet[field + 1]) ^ 0xFFFF
    total += (before ^ 0xFFFF) + after
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[field : field + 2] = (total ^ 0xFFFF).to_bytes(2, "big")
