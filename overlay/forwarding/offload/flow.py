"""What the packets of one flow have in common, and the checksums of their headers.

One's complement sums do not depend on the byte order they are taken in (RFC 1071 section 2 B), so sums here are of
little-endian words and are stored as such; every other number in a header is big endian.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from overlay.wire.ip import PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.messages import PADDING, TAG_SIZE, TRANSPORT_HEADER
from overlay.wire.partial import TCP_CSUM_OFFSET, UDP_CSUM_OFFSET
from overlay.wire.tcp import PSH, TCP_HEADER_SIZE
from overlay.wire.virtio import (
    GSO_TCPV6,
)

# Specification
HEADER_SIZE = TRANSPORT_HEADER.size  # 16
OVERHEAD = HEADER_SIZE + TAG_SIZE  # 32
UDP_HEADER_SIZE = 8
MODULUS = np.uint32(0xFFFF)  # a one's complement sum is right where it is 0 modulo this
Bytes2D: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[Any]


def padded(length: int, mtu: int) -> int:
    """Return the plaintext length for a packet of *length* bytes.

    A multiple of 16, unless that would be longer than *mtu*: then the packet is not padded.  The kernel may have sent
    it under a route whose MTU is smaller than the device's, and what fitted must still fit.
    """
    full = -(-length // PADDING) * PADDING
    return full if full <= mtu else length


def complement(sums: Words) -> Words:
    """Return the checksums for one's complement *sums*, which are not folded and not 0.

    2**16 is 1 modulo 0xFFFF, so one remainder folds.  2**32 - 1 is 0 modulo it: the sum's bits inverted are its
    negative.  0 and 0xFFFF are the same number, and what is complemented is the latter.
    """
    return ~sums % MODULUS


def _fold_scalar(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def swap(value: int) -> int:
    """Return *value*, of 16 bits, with its two bytes exchanged."""
    return (value & 0xFF) << 8 | value >> 8


def sum_le(data: memoryview | bytes | bytearray) -> int:
    """Return the sum of *data*, of even length, as little-endian words, folded."""
    number = int.from_bytes(data, "little")
    return number % 0xFFFF or (0xFFFF if number else 0)


class Framing(NamedTuple):
    """What stands around a packet in a datagram: bytes before it, bytes behind it, and whether zeros fill it up.

    The last *inner* bytes of those before it are sealed with it.
    """

    header: int  # an even number
    tag: int
    pads: bool
    inner: int = 0  # an even number

    def plain_size(self, length: int, mtu: int) -> int:
        """Return what a packet of *length* bytes takes between header and tag."""
        return padded(self.inner + length, mtu) - self.inner if self.pads else length


SEALED = Framing(HEADER_SIZE, TAG_SIZE, pads=True)


class Flow(NamedTuple):
    """Where the headers of a TCP or UDP packet are: offsets and sizes in bytes."""

    version: int
    protocol: int
    l4: int  # start of the TCP or UDP header
    size: int  # of all headers


def flow_of(packet: memoryview | bytes) -> Flow | None:
    """Return the header positions of a whole, unfragmented TCP or UDP packet; None for any other."""
    version = packet[0] >> 4
    if version == 4:
        l4, protocol = (packet[0] & 15) * 4, packet[9]
        if packet[6] & 0x3F or packet[7] or l4 < 20:
            return None
    elif version == 6:
        l4, protocol = 40, packet[6]
    else:
        return None
    if protocol == PROTOCOL_TCP and len(packet) >= l4 + TCP_HEADER_SIZE:
        size = l4 + (packet[l4 + 12] >> 4) * 4
        if l4 + TCP_HEADER_SIZE <= size <= len(packet):
            return Flow(version, protocol, l4, size)
    elif protocol == PROTOCOL_UDP and len(packet) >= l4 + UDP_HEADER_SIZE:
        return Flow(version, protocol, l4, l4 + UDP_HEADER_SIZE)
    return None


def flow_behind_extensions(packet: memoryview, gso_type: int, l4: int) -> Flow | None:
    """Return the header positions of an IPv6 super-packet with extension headers, whose kernel says
    where TCP or UDP begins.
    """
    protocol = PROTOCOL_TCP if gso_type == GSO_TCPV6 else PROTOCOL_UDP
    size = l4 + UDP_HEADER_SIZE
    if packet[0] >> 4 != 6 or l4 <= 40 or l4 & 1 or len(packet) < size:
        return None
    if protocol == PROTOCOL_TCP:
        if len(packet) < l4 + TCP_HEADER_SIZE:
            return None
        size = l4 + (packet[l4 + 12] >> 4) * 4
        if not l4 + TCP_HEADER_SIZE <= size <= len(packet):
            return None
    return Flow(6, protocol, l4, size)


def check_ipv4(header: bytearray | memoryview) -> int:
    """Return the checksum of the IPv4 header that *header* begins with; its field is zero."""
    return swap(sum_le(header[: (header[0] & 15) * 4]) ^ 0xFFFF)


def write_ipv4_checksum(header: bytearray) -> None:
    """Set the checksum of the IPv4 header that *header* begins with."""
    header[10:12] = b"\0\0"
    header[10:12] = check_ipv4(header).to_bytes(2, "big")


def may_go_on(packet: memoryview) -> bool:
    """Return whether what follows *packet*, the last of a receive, may be joined with it."""
    if len(packet) < 74:  # the longest IPv4 header, and the flags of TCP
        return False
    is_ipv4 = packet[0] >> 4 == 4
    if packet[9 if is_ipv4 else 6] != PROTOCOL_TCP:
        return True
    return not packet[((packet[0] & 15) * 4 if is_ipv4 else 40) + 13] & PSH


def write_partial_checksum(header: bytearray | memoryview, flow: Flow, size: int) -> int:
    """Write the sum of the pseudo header of a packet of *size* bytes where the kernel is to finish it.

    Returns the offset of the field in the TCP or UDP header, the ``csum_offset`` of a virtio header.
    """
    version, protocol, l4, _ = flow
    addresses = header[12:20] if version == 4 else header[8:40]
    partial = _fold_scalar(sum_le(addresses) + swap(protocol) + swap(size - l4))
    offset = TCP_CSUM_OFFSET if protocol == PROTOCOL_TCP else UDP_CSUM_OFFSET
    header[l4 + offset : l4 + offset + 2] = partial.to_bytes(2, "little")
    return offset
