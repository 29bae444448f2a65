"""What the kernel drops at our sockets before it can be read: datagrams that exceed the receive buffer, and those
that belong to nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Role

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from overlay.forwarding.underlay.udp_socket import UdpSocket

# At the socket for handshake messages a filter drops what is not a message; the kernel counts both as one there.
REASONS = {
    Role.ALL: "receive_full",
    Role.RECEIVES: "receive_full",
    Role.LANE: "receive_full",
    Role.HANDSHAKES: "udp_filtered",
}
_WRAP = 2**32  # the kernel's counters have 32 bits


def count_kernel_drops(drops: Counter[str], sockets: Iterable[UdpSocket]) -> None:
    """Add to *drops* what the kernel dropped at *sockets* since the last call, or since they were opened."""
    for udp in sockets:
        reason = REASONS.get(udp.role)
        if reason is None or udp.queue is None:
            continue
        dropped = udp.queue.dropped()
        more = (dropped - udp.kernel_drops) % _WRAP
        udp.kernel_drops = dropped
        if more:
            drops[reason] += more
