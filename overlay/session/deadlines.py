"""Deadlines by key, of which the earliest is found quickly among ten thousand."""

from __future__ import annotations

import heapq
import math

_SLACK = 64  # outdated entries that are not worth a clean-up


class Deadlines:
    """One deadline for each key.

    A heap whose entries stay when a deadline changes: an entry is valid only if it is the current time of its key.  The
    others are dropped when they come to the top, or all at once when they outnumber the rest.
    """

    __slots__ = ("_heap", "_when")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._when: dict[int, float] = {}

    def set(self, key: int, when: float) -> None:
        """Set the deadline of *key* to *when*; math.inf removes it."""
        if when == math.inf:
            self._when.pop(key, None)
        elif self._when.get(key) != when:
            self._when[key] = when
            heapq.heappush(self._heap, (when, key))
            if len(self._heap) > 2 * len(self._when) + _SLACK:
                self._heap = [(when, key) for key, when in self._when.items()]
                heapq.heapify(self._heap)

    def next(self) -> float:
        """Return the earliest deadline; math.inf if there is none."""
        heap = self._heap
        while heap:
            when, key = heap[0]
            if self._when.get(key) == when:
                return when
            heapq.heappop(heap)
        return math.inf

    def take_due(self, now: float, limit: int) -> list[int]:
        """Return at most *limit* keys whose deadline has come, earliest first, and remove their deadlines."""
        due: list[int] = []
        while len(due) < limit and self.next() <= now and self._heap:  # at the end of time nothing is due
            _, key = heapq.heappop(self._heap)
            del self._when[key]
            due.append(key)
        return due
