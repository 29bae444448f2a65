"""Checksums that a kernel left to its network card: the field has only the folded sum of the pseudo header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.wire.ip import PROTOCOL_TCP

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 9293 section 3.1, RFC 768): offset of the checksum, in bytes from the start of the header
TCP_CSUM_OFFSET, UDP_CSUM_OFFSET = 16, 6


def may_be_partial(packet: Buffer) -> bool:
    """Return whether *packet*, a whole IP packet, has such a checksum, if it is TCP or UDP and not a fragment.

    This is called for every single packet from an unencrypted peer, so it does the minimum: sums are compared modulo
    0xFFFF.
    """
    if packet[0] >> 4 == 4:
        l4, protocol, ends = (packet[0] & 15) * 4, packet[9], packet[12:20]
    else:
        l4, protocol, ends = 40, packet[6], packet[8:40]
    at = l4 + (TCP_CSUM_OFFSET if protocol == PROTOCOL_TCP else UDP_CSUM_OFFSET)
    size = len(packet)
    if size < at + 2:
        return False
    found = packet[at] << 8 | packet[at + 1]
    return not (int.from_bytes(ends, "big") + protocol + size - l4 - found) % 0xFFFF
