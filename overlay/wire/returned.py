"""ICMP errors about packets that could not be delivered, which quote the packet (RFC 792, RFC 4443)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from overlay.wire.icmp import FRAGMENTATION_NEEDED_V4, ICMP_HEADER, UNREACHABLE_V4, UNREACHABLE_V6
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE

# Specification: the types for packets that did not arrive.  "Too big" is different: the kernel learns the path MTU from
# it.
TIME_EXCEEDED_V4, TIME_EXCEEDED_V6 = 11, 3
LOST_V4, LOST_V6 = (UNREACHABLE_V4, TIME_EXCEEDED_V4), (UNREACHABLE_V6, TIME_EXCEEDED_V6)


@dataclass(frozen=True, slots=True)
class Returned:
    """A packet that was lost on its way: its destination, its IP protocol, and the quoted part of its payload."""

    destination: bytes
    protocol: int
    payload: bytes

    @classmethod
    def parse(cls, message: bytes, version: int) -> Self | None:
        """Read an ICMP message of an IP *version*, without its own IP header; None if it is not such an error."""
        if len(message) < ICMP_HEADER.size:
            return None
        kind, code = message[0], message[1]
        quoted = message[ICMP_HEADER.size :]
        if version == 4:
            if kind not in LOST_V4 or (kind, code) == (UNREACHABLE_V4, FRAGMENTATION_NEEDED_V4):
                return None
            size = (quoted[0] & 15) * 4 if quoted else 0
            if len(quoted) < max(size, IPV4_HEADER_SIZE) or quoted[0] >> 4 != 4 or size < IPV4_HEADER_SIZE:
                return None
            if (quoted[6] & 0x1F) or quoted[7]:  # a later fragment has no headers
                return None
            return cls(quoted[16:20], quoted[9], quoted[size:])
        if kind not in LOST_V6 or len(quoted) < IPV6_HEADER_SIZE or quoted[0] >> 4 != 6:
            return None
        return cls(quoted[24:40], quoted[6], quoted[IPV6_HEADER_SIZE:])
