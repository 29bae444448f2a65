"""The maximum segment size that a TCP SYN announces (RFC 9293 section 3.7.1), lowered to fit a path."""

from __future__ import annotations

from overlay.wire.ip import (
    EXTENSIONS,
    FRAGMENT,
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    IPV6_MINIMUM_MTU,
    PROTOCOL_TCP,
)
from overlay.wire.partial import TCP_CSUM_OFFSET
from overlay.wire.tcp import (
    END_OF_OPTIONS,
    FLAGS_OFFSET,
    MAXIMUM_SEGMENT_SIZE,
    MSS_SIZE,
    NO_OPERATION,
    SYN,
    TCP_HEADER_SIZE,
)

# Specification
PROTOCOL_AT = {4: 9, 6: 6}  # offset of the protocol in the IP header


def clamp_syn(
    packets: bytearray | memoryview,
    start: int,
    end: int,
    mtu: int,
    path_mtu: int,
    *,
    is_partial: bool = False,
) -> None:
    """If the packet from *start* to *end* is a TCP SYN, lower its MSS to what fits *mtu* and *path_mtu*.

    With *is_partial* its checksum covers only the pseudo header.  Nearly all packets are left alone after a look at
    their protocol or TCP flags.
    """
    first = packets[start]
    if first >> 4 == 4:
        if packets[start + PROTOCOL_AT[4]] != PROTOCOL_TCP:
            return
        flags = start + (first & 15) * 4 + FLAGS_OFFSET
    else:
        protocol = packets[start + PROTOCOL_AT[6]]
        if protocol != PROTOCOL_TCP and protocol not in EXTENSIONS:
            return
        flags = start + IPV6_HEADER_SIZE + FLAGS_OFFSET if protocol == PROTOCOL_TCP else 0
    if not flags or (flags < end and packets[flags] & SYN):
        clamp_mss(memoryview(packets)[start:end], min(mtu, path_mtu), is_partial=is_partial)


def clamp_mss(packet: bytearray | memoryview, mtu: int, *, is_partial: bool = False) -> bool:
    """Lower the MSS that *packet* announces to what fits *mtu*, in place, and return whether it was larger.

    Only a TCP SYN with such an option is changed.  The MSS is what fits after headers without options, because a sender
    subtracts those that it sends (RFC 6691 section 2).  With *is_partial* the checksum covers only the pseudo header,
    and stays; otherwise it is updated (RFC 1624).
    """
    start = _tcp_at(packet)
    if not start or not packet[start + FLAGS_OFFSET] & SYN:
        return False
    if packet[0] >> 4 == 6:
        most = max(mtu, IPV6_MINIMUM_MTU) - IPV6_HEADER_SIZE - TCP_HEADER_SIZE
    else:
        most = mtu - IPV4_HEADER_SIZE - TCP_HEADER_SIZE
    at = _mss_at(packet, start)
    if not at or (packet[at] << 8 | packet[at + 1]) <= most:
        return False
    if not is_partial:
        _update(packet, start + TCP_CSUM_OFFSET, at, most)
    packet[at : at + 2] = most.to_bytes(2, "big")
    return True


def _tcp_at(packet: bytearray | memoryview) -> int:
    """Return where the TCP header of *packet* begins; 0 if it has none, or only part of one."""
    size = len(packet)
    version = packet[0] >> 4 if size else 0
    if version == 4 and size >= IPV4_HEADER_SIZE:
        protocol, start = packet[9], (packet[0] & 15) * 4
        if packet[6] & 0x1F or packet[7] or start < IPV4_HEADER_SIZE:
            return 0
    elif version == 6 and size >= IPV6_HEADER_SIZE:
        protocol, start = packet[6], IPV6_HEADER_SIZE
        while protocol in EXTENSIONS:
            if start + 8 > size:
                return 0
            if protocol == FRAGMENT and (packet[start + 2] or packet[start + 3] & 0xF8):
                return 0  # a later fragment
            length = 8 if protocol == FRAGMENT else (packet[start + 1] + 1) * 8
            protocol, start = packet[start], start + length
    else:
        return 0
    return start if protocol == PROTOCOL_TCP and start + TCP_HEADER_SIZE <= size else 0


def _mss_at(packet: bytearray | memoryview, start: int) -> int:
    """Return where the MSS is in the TCP header that begins at *start*; 0 if it is missing."""
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
    """Update the checksum at *field* for *value* in the two bytes at *at* (RFC 1624 section 3).

    At an odd offset the two bytes belong to two words; the sum takes them swapped.
    """
    before, after = packet[at] << 8 | packet[at + 1], value
    if (at - field) & 1:
        before, after = (before & 0xFF) << 8 | before >> 8, (after & 0xFF) << 8 | after >> 8
    total = (packet[field] << 8 | packet[field + 1]) ^ 0xFFFF
    total += (before ^ 0xFFFF) + after
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[field : field + 2] = (total ^ 0xFFFF).to_bytes(2, "big")
