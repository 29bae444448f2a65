"""ICMP errors and echoes (RFC 792, RFC 4443).  Numbers are big endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from overlay.errors import PacketError
from overlay.wire.ethernet import ND_REDIRECT
from overlay.wire.ip import (
    EXTENSIONS,
    FRAGMENT,
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    IPV6_MINIMUM_MTU,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    Buffer,
    checksum,
    pseudo_header_sum,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

# Specification
UNREACHABLE_V4 = 3
UNREACHABLE_V6 = 1
HOST_UNREACHABLE_V4, PORT_UNREACHABLE_V4 = 1, 3  # codes, RFC 792
ADDRESS_UNREACHABLE_V6, PORT_UNREACHABLE_V6 = 3, 4  # codes, RFC 4443 section 3.1
FRAGMENTATION_NEEDED_V4 = 4  # code, RFC 1191 section 4
TOO_BIG_V6 = 2  # RFC 4443 section 3.2
ECHO_REPLY_V4, ECHO_REQUEST_V4 = 0, 8
ECHO_REQUEST_V6, ECHO_REPLY_V6 = 128, 129
IPV4_ERROR_MAXIMUM = 576  # RFC 1812 section 4.3.2.3

# - 1 byte type, 1 byte code, 2 bytes checksum, 4 bytes that depend on the type
ICMP_HEADER = struct.Struct("!BBHI")
ECHO_HEADER = struct.Struct("!BBHHH")
IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
IPV6_HEADER = struct.Struct("!IHBB16s16s")

# ICMPv4 types that report errors: RFC 1122 section 3.2.2 forbids an error about an error.
_ERRORS_V4 = frozenset({3, 4, 5, 11, 12})


def may_answer(packet: Buffer) -> bool:
    """Return whether an ICMP error may be sent about *packet*, a whole IP packet.

    Errors must not be sent about ICMP errors and redirects, later fragments, or packets from or to an address of more
    than one host (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
    """
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        if packet[16] >= 224 or packet[12] >= 224 or packet[12] in {0, 127}:
            return False
        if (packet[6] & 0x1F) or packet[7]:
            return False
        return not (packet[9] == PROTOCOL_ICMP and (len(packet) <= header or packet[header] in _ERRORS_V4))
    if packet[24] == 0xFF or packet[8] == 0xFF or not any(packet[8:24]):
        return False
    protocol, offset = packet[6], IPV6_HEADER_SIZE
    while protocol in EXTENSIONS:
        if len(packet) < offset + 8:
            return False
        if protocol == FRAGMENT and (packet[offset + 2] or packet[offset + 3] & 0xF8):
            return False
        size = 8 if protocol == FRAGMENT else (packet[offset + 1] + 1) * 8
        protocol, offset = packet[offset], offset + size
    if protocol != PROTOCOL_ICMPV6:
        return True
    return len(packet) > offset and packet[offset] >= 128 and packet[offset] != ND_REDIRECT


def told_mtu(packet: Buffer) -> int | None:
    """Return the MTU in the ICMP error in *packet*, a whole IP packet; None if it has none."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        is_told = packet[9] == PROTOCOL_ICMP and len(packet) >= header + ICMP_HEADER.size
        wanted = bytes((UNREACHABLE_V4, FRAGMENTATION_NEEDED_V4))
    else:
        header = IPV6_HEADER_SIZE
        is_told = packet[6] == PROTOCOL_ICMPV6 and len(packet) >= header + ICMP_HEADER.size
        wanted = bytes((TOO_BIG_V6, 0))
    if not is_told or packet[header : header + 2] != wanted:
        return None
    _, _, _, value = ICMP_HEADER.unpack_from(packet, header)
    return int(value) & 0xFFFF if packet[0] >> 4 == 4 else int(value)  # RFC 4884 puts a length next to IPv4's


def unreachable_v4(packet: Buffer) -> bytes:
    """Return the ICMP message, without an IP header, that says the destination of *packet* cannot be reached."""
    return _error_v4(packet, HOST_UNREACHABLE_V4, 0)


def too_big_v4(packet: Buffer, mtu: int) -> bytes:
    """Return the ICMP message, without an IP header, that says *packet* is larger than *mtu*."""
    return _error_v4(packet, FRAGMENTATION_NEEDED_V4, mtu)


def unreachable_v6(packet: Buffer, source: bytes) -> bytes:
    """Return the IPv6 packet from *source* (16 bytes) that says the destination of *packet* cannot be reached."""
    return _error_v6(packet, source, UNREACHABLE_V6, ADDRESS_UNREACHABLE_V6, 0)


def port_unreachable(packet: Buffer) -> bytes:
    """Return the IP packet, from the destination of *packet*, that says that its port is not in use."""
    if packet[0] >> 4 == 4:
        message = _error_v4(packet, PORT_UNREACHABLE_V4, 0)
        return in_ipv4(message, bytes(packet[16:20]), bytes(packet[12:16]))
    return _error_v6(packet, bytes(packet[24:40]), UNREACHABLE_V6, PORT_UNREACHABLE_V6, 0)


def too_big_v6(packet: Buffer, source: bytes, mtu: int) -> bytes:
    """Return the IPv6 packet from *source* (16 bytes) that says *packet* is larger than *mtu*,
    which is at least 1280.
    """
    return _error_v6(packet, source, TOO_BIG_V6, 0, max(mtu, IPV6_MINIMUM_MTU))


def _error_v4(packet: Buffer, code: int, value: int) -> bytes:
    quoted = bytes(packet[: IPV4_ERROR_MAXIMUM - IPV4_HEADER_SIZE - ICMP_HEADER.size])
    message = ICMP_HEADER.pack(UNREACHABLE_V4, code, 0, value) + quoted
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


def _error_v6(packet: Buffer, source: bytes, kind: int, code: int, value: int) -> bytes:
    # The packet with the error must not exceed the minimum MTU (RFC 4443 section 2.4 c).
    quoted = bytes(packet[: IPV6_MINIMUM_MTU - IPV6_HEADER_SIZE - ICMP_HEADER.size])
    message = ICMP_HEADER.pack(kind, code, 0, value) + quoted
    destination = bytes(packet[8:24])
    start = pseudo_header_sum(source, destination, PROTOCOL_ICMPV6, len(message))
    message = message[:2] + checksum(message, start).to_bytes(2, "big") + message[4:]
    return IPV6_HEADER.pack(6 << 28, len(message), PROTOCOL_ICMPV6, 64, source, destination) + message


def in_ipv4(message: bytes, source: bytes, destination: bytes) -> bytes:
    """Return *message* as the payload of an IPv4 packet of protocol ICMP; addresses are 4 bytes."""
    size = IPV4_HEADER_SIZE + len(message)
    header = IPV4_HEADER.pack(0x45, 0, size, 0, 0, 64, PROTOCOL_ICMP, 0, source, destination)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + message


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply, as ``overlay ping`` sends and awaits it."""

    is_reply: bool
    identifier: int
    sequence: int
    data: bytes

    @classmethod
    def parse(cls, message: bytes, version: int) -> Self:
        """Read an ICMP message of IP *version* without its IP header.  Raises PacketError ``not_echo``."""
        if len(message) < ECHO_HEADER.size:
            raise PacketError("not_echo")
        kind, _, _, identifier, sequence = ECHO_HEADER.unpack_from(message)
        request, reply = (
            (ECHO_REQUEST_V4, ECHO_REPLY_V4) if version == 4 else (ECHO_REQUEST_V6, ECHO_REPLY_V6)
        )
        if kind not in {request, reply}:
            raise PacketError("not_echo")
        return cls(kind == reply, identifier, sequence, message[ECHO_HEADER.size :])

    def build(self, source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address) -> bytes:
        """Return the message with its checksum; the addresses matter only for ICMPv6 (its pseudo header)."""
        if source.version == 4:
            kind = ECHO_REPLY_V4 if self.is_reply else ECHO_REQUEST_V4
        else:
            kind = ECHO_REPLY_V6 if self.is_reply else ECHO_REQUEST_V6
        message = ECHO_HEADER.pack(kind, 0, 0, self.identifier, self.sequence) + self.data
        start = 0
        if source.version == 6:
            start = pseudo_header_sum(source.packed, destination.packed, PROTOCOL_ICMPV6, len(message))
        return message[:2] + checksum(message, start).to_bytes(2, "big") + message[4:]
