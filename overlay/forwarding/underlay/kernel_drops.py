"""What the kernel drops at our sockets before it can be read: datagrams for which there is no room, and those
that belong to nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Role

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from overlay.forwarding.underlay.udp_socket import UdpSocket

# At the socket for handshake messages a filter drops what is no message, and nobody tells the two apart there.
REASONS = {Role.ALL: "receive_full", Role.RECEIVES: "receive_full", Role.HANDSHAKES: "udp_filtered"}
_WRAP = 2**32  # the kernel's counters have 32 bits


class KernelDrops:
    """How much of the kernel's counters has been added to ours."""

    def __init__(self) -> None:
        self._seen: dict[UdpSocket, int] = {}

    def add_to(self, drops: Counter[str], sockets: Iterable[UdpSocket]) -> None:
        """Add to *drops* what the kernel dropped at *sockets* since the last time, or since they were opened."""
        for udp in sockets:
            reason = REASONS.get(udp.role)
            if reason is None or udp.queue is None:
                continue
            dropped = udp.queue.dropped()
            more = (dropped - self._seen.get(udp, 0)) % _WRAP
            self._seen[udp] = dropped
            if more:
                drops[reason] += more

    def close(self, drops: Counter[str], sockets: Iterable[UdpSocket]) -> None:
        """Do so a last time for *sockets* that are to be closed."""
        for udp in sockets:
            self.add_to(drops, (udp,))
            self._seen.pop(udp, None)
