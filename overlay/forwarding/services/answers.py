"""What a director answers on behalf of a virtual address, where there is no server that could.

All functions return whole IP packets from the destination of the packet that they answer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.wire.icmp import (
    ECHO_REPLY_V4,
    ECHO_REPLY_V6,
    ECHO_REQUEST_V4,
    ECHO_REQUEST_V6,
    IPV4_HEADER,
    IPV6_HEADER,
    may_answer,
    port_unreachable,
)
from overlay.wire.ip import (
    DONT_FRAGMENT,
    IPV4_HEADER_SIZE,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    checksum,
    pseudo_header_sum,
)
from overlay.wire.tcp import ACK, FIN, FLAGS_OFFSET, RST, SYN, TCP_HEADER_SIZE

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 9293 section 3.1)
# - 2 bytes source port, 2 bytes destination port, 4 bytes sequence number, 4 bytes acknowledgment number,
# - 1 byte data offset, 1 byte flags, 2 bytes window, 2 bytes checksum, 2 bytes urgent pointer
_TCP_HEADER = struct.Struct("!HHIIBBHHH")


def refusal(packet: Buffer, protocol: int, at: int) -> bytes | None:
    """Return the refusal of *packet* for its sender: a RST for TCP, else ICMP port unreachable.

    *at* is where the upper layer begins.  None if nothing may be answered.
    """
    if protocol == PROTOCOL_TCP:
        return reset(packet, at)
    return port_unreachable(packet) if may_answer(packet) else None


def reset(packet: Buffer, at: int) -> bytes | None:
    """Return the RST that answers a TCP segment for a connection that does not exist (RFC 9293 section 3.10.7.1).

    None for one that is a RST itself, lacks a part of its header, or comes from no host.
    """
    if len(packet) < at + TCP_HEADER_SIZE or not may_answer(packet):
        return None
    source, destination, sequence, acknowledged, offset, flags, *_ = _TCP_HEADER.unpack_from(packet, at)
    if flags & RST:
        return None
    if flags & ACK:
        number, following, answer = acknowledged, 0, RST
    else:
        length = max(0, len(packet) - at - (offset >> 4) * 4)
        length += bool(flags & SYN) + bool(flags & FIN)
        number, following, answer = 0, (sequence + length) % 2**32, RST | ACK
    segment = _TCP_HEADER.pack(destination, source, number, following, 5 << 4, answer, 0, 0, 0)
    start = pseudo_header_sum(*_addresses(packet), PROTOCOL_TCP, len(segment))
    segment = segment[:16] + checksum(segment, start).to_bytes(2, "big") + segment[18:]
    return _in_ip(packet, segment, PROTOCOL_TCP)


def echo_reply(packet: Buffer, at: int) -> bytes | None:
    """Return the answer to an echo request whose ICMP header begins at *at*; None for any other message."""
    is_ipv4 = packet[0] >> 4 == 4
    request, reply = (ECHO_REQUEST_V4, ECHO_REPLY_V4) if is_ipv4 else (ECHO_REQUEST_V6, ECHO_REPLY_V6)
    if len(packet) < at + 8 or packet[at] != request or packet[at + 1] or not may_answer(packet):
        return None
    message = bytes([reply, 0, 0, 0]) + bytes(packet[at + 4 :])
    protocol = PROTOCOL_ICMP if is_ipv4 else PROTOCOL_ICMPV6
    start = 0 if is_ipv4 else pseudo_header_sum(*_addresses(packet), protocol, len(message))
    message = message[:2] + checksum(message, start).to_bytes(2, "big") + message[4:]
    return _in_ip(packet, message, protocol)


def flags_of(packet: Buffer, at: int) -> int:
    """Return the flags of the TCP header that begins at *at*; ACK where a fragment ends before them."""
    return packet[at + FLAGS_OFFSET] if len(packet) > at + FLAGS_OFFSET else ACK


def _addresses(packet: Buffer) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return bytes(packet[12:16]), bytes(packet[16:20])
    return bytes(packet[8:24]), bytes(packet[24:40])


def _in_ip(packet: Buffer, data: bytes, protocol: int) -> bytes:
    """Return a packet that goes the way of *packet* back."""
    source, destination = _addresses(packet)
    if len(source) == 16:
        return IPV6_HEADER.pack(6 << 28, len(data), protocol, 64, destination, source) + data
    size = IPV4_HEADER_SIZE + len(data)
    header = IPV4_HEADER.pack(0x45, 0, size, 0, DONT_FRAGMENT << 8, 64, protocol, 0, destination, source)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + data
