"""What is due when, for peers: at most one entry for a peer and kind, however often its moment moves.

The packet path only writes down *since when* something is outstanding.  An entry that comes due finds out whether it
still is, and returns later if its moment has moved: so traffic at any rate costs no heap operation.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.forwarding.peer import Peer


class Timers:
    """A heap of (moment, order, peer, kind)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Peer, str]] = []
        self._order = 0

    def arm(self, at: float, peer: Peer, kind: str) -> None:
        """Make *kind* of *peer* due *at*, unless it has an entry already."""
        if kind not in peer.timers:
            peer.timers.add(kind)
            self._order += 1
            heapq.heappush(self._heap, (at, self._order, peer, kind))

    def next_deadline(self) -> float:
        """Return when due() has something; math.inf if never."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[tuple[Peer, str]]:
        """Return and forget the entries whose moment has come."""
        ready = []
        while self._heap and self._heap[0][0] <= now:
            _, _, peer, kind = heapq.heappop(self._heap)
            peer.timers.discard(kind)
            ready.append((peer, kind))
        return ready

    def forget(self, peer: Peer) -> None:
        """Drop the entries of a peer that was removed."""
        if peer.timers:
            self._heap = [entry for entry in self._heap if entry[2] is not peer]
            heapq.heapify(self._heap)
            peer.timers.clear()
