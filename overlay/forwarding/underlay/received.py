"""What one receive of an underlay socket gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from overlay.forwarding.underlay.arrival import Arrival
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.wire.addresses import Sockaddr


class Received:
    """Datagrams of one sender at the start of a buffer: of *stride* bytes except for the last, together *size*.

    There is one for all receives, as there is one buffer: a value made for each would cost more than a look-up of the
    peer, and datagrams may come singly.  *source* and *arrival* tell where they came from, and *udp* and *now* where
    and when they were received.
    """

    __slots__ = ("array", "arrival", "buffer", "now", "size", "source", "stride", "udp", "view")

    arrival: Arrival
    source: Sockaddr
    udp: UdpSocket
    now: float

    def __init__(self, room: int) -> None:
        self.buffer = bytearray(room)
        self.view, self.array = memoryview(self.buffer), np.frombuffer(self.buffer, dtype=np.uint8)
        self.size = self.stride = 0
