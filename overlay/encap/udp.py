"""The bare IP packet in a UDP datagram: flannel's udp backend, and Linux FOU with ``ipproto 4`` and ``ipproto 41``.

It has no header of its own; the version nibble distinguishes IPv4 from IPv6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Encapsulation, Ends, Layout, Stripped
from overlay.wire.ip import packet_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.ip import Buffer


def prefix(_: Ends) -> Mapping[int, bytes]:
    """Return the bytes before a packet: none."""
    return {4: b"", 6: b""}


def strip(payload: Buffer) -> Stripped:
    """Return where the packet in *payload* begins and ends.  Raises PacketError, and nothing else, for any bytes."""
    return Stripped(0, packet_length(payload), None)


ENCAPSULATION = Encapsulation("udp", {4: 20 + 8, 6: 40 + 8}, Clear(prefix, strip, layout=Layout.BARE))
