"""The timers of peers: at most one entry is in force for a peer and kind, however often its moment moves.

The packet path only writes down *since when* something is outstanding.  An entry that comes due checks whether it still
is, and returns later if its moment has moved, so traffic at any rate costs no heap operation.  An entry that is
withdrawn stays in the heap until it comes to the top, without effect: its order differs from the one its peer names.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.forwarding.peer import LivePeer

# Timers that the packet path asks for: their bits in ``contact.armed``
ARMED = {"silence": 1, "answer": 2, "units": 4}

# Ours
OUT_OF_FORCE = 64  # entries out of force that are passed over at once: of many peers there may be thousands


class Timers:
    """A heap of (moment, order, peer, kind)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, LivePeer, str]] = []
        self._order = 0

    def arm(self, at: float, peer: LivePeer, kind: str) -> None:
        """Make *kind* of *peer* due *at*, unless it has an entry already."""
        if kind not in peer.timers:
            self.rearm(at, peer, kind)

    def rearm(self, at: float, peer: LivePeer, kind: str) -> None:
        """Make *kind* of *peer* due *at*, in place of any entry it has."""
        self._order += 1
        peer.timers[kind] = self._order
        peer.contact.armed |= ARMED.get(kind, 0)
        heapq.heappush(self._heap, (at, self._order, peer, kind))

    def next_deadline(self) -> float:
        """Return when due() may have something; math.inf if never."""
        heap = self._heap
        for _ in range(OUT_OF_FORCE):
            if not heap or heap[0][2].timers.get(heap[0][3]) == heap[0][1]:
                break
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def due(self, now: float) -> Iterator[tuple[LivePeer, str]]:
        """Yield the entries whose moment has come, each forgotten at that; what is not asked for stays due.

        What is made due meanwhile is left for the next call, and so is what comes after many entries out of force:
        next_deadline() tells.
        """
        last, passed = self._order, 0
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] <= last:
            _, order, peer, kind = heapq.heappop(self._heap)
            if peer.timers.get(kind) == order:
                del peer.timers[kind]
                peer.contact.armed &= ~ARMED.get(kind, 0)
                yield peer, kind
            elif (passed := passed + 1) >= OUT_OF_FORCE:
                return

    @staticmethod
    def forget(peer: LivePeer) -> None:
        """Take back the entries of a peer that was removed."""
        peer.timers.clear()
        peer.contact.armed = 0


class Slots:
    """Moments for what must not happen all at once: at most *rate* in a second, the first at once."""

    def __init__(self, rate: float) -> None:
        self._step, self._next = 1 / rate, -math.inf

    def next(self, now: float) -> float:
        """Return the first moment from *now* on that has not been given out."""
        moment = max(now, self._next)
        self._next = moment + self._step
        return moment
