"""The fields that an outer header inherits from the packet behind it, as one number that is compared at once.

- bits 0 to 7: the TOS or traffic class.  ECN is the inner one, whatever it is (RFC 6040 section 4.1, normal mode);
  DSCP too where the outer header is right before the packet (RFC 2983 section 3.2, uniform), else it is zero
- bits 8 to 15: the TTL or hop limit, 0 for the socket's own
- bit 16: the packet must not be fragmented, nor the one around it (RFC 2003 section 3.1)
- bit 17: the packet inside is IPv6

Where payloads travel in UDP datagrams only TOS and TTL matter, and where they are sealed only ECN does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.wire.ip import DONT_FRAGMENT

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

TOS = 0xFF
TTL_SHIFT = 8
WHOLE = 1 << 16
IPV6 = 1 << 17
KIND_SHIFT = 16  # of those two, which decide for a raw socket

# Specification (RFC 791 section 3.1, RFC 8200 section 3): offsets in a packet
_IPV4_FLAGS, _IPV4_TTL, _IPV6_HOP_LIMIT = 6, 8, 7


def ttl_of(packet: Buffer, start: int = 0) -> int:
    """Return the TTL or hop limit of the packet at *start*."""
    return packet[start + (_IPV4_TTL if packet[start] >> 4 == 4 else _IPV6_HOP_LIMIT)]


def marks_of(packet: Buffer, start: int = 0, *, inherits_ttl: bool = False) -> int:
    """Return the marks of the outer header right before the packet at *start*."""
    if packet[start] >> 4 == 4:
        marks = packet[start + 1]
        if packet[start + _IPV4_FLAGS] & DONT_FRAGMENT:
            marks |= WHOLE
    else:
        marks = (packet[start] << 4 | packet[start + 1] >> 4) & TOS | WHOLE | IPV6
    return marks | ttl_of(packet, start) << TTL_SHIFT if inherits_ttl else marks
