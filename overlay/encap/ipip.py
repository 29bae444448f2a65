"""The IP packet right behind another IP header: IP in IP (RFC 2003, RFC 4213 section 3, RFC 2473).

It has no header of its own.  The protocol number in the outer header distinguishes IPv4 inside (4) from IPv6 (41), and
so does the version nibble, which must agree with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Encapsulation, Ends, Layout, Stripped
from overlay.wire.ip import packet_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.ip import Buffer

# Specification (IANA, Assigned Internet Protocol Numbers)
PROTOCOL_IPV4 = 4
PROTOCOL_IPV6 = 41


def prefix(_: Ends) -> Mapping[int, bytes]:
    """Return the bytes before a packet: none."""
    return {4: b"", 6: b""}


def strip(payload: Buffer) -> Stripped:
    """Return where the packet in *payload* begins and ends.  Raises PacketError, and nothing else, for any bytes."""
    return Stripped(0, packet_length(payload), None)


ENCAPSULATION = Encapsulation(
    "ipip", {4: 20, 6: 40}, Clear(prefix, strip, layout=Layout.BARE), {4: PROTOCOL_IPV4, 6: PROTOCOL_IPV6}
)
