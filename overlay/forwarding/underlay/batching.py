"""How much to read from a descriptor in one go.

Asking an empty descriptor for more costs a system call, and on an idle host, whose caches are cold, a good part of a
round trip.  So while packets come one at a time, one is taken and passed on at once; the poll tells if there are more.
Now and then, when packets come quickly, more are asked for; once that finds some, batches are taken until a batch has
one packet again.
"""

from __future__ import annotations

from overlay.forwarding import state

# Ours
QUICK = 0.001  # seconds between two goes: slower than that, nothing is gained by batches
PROBE = 4  # quick goes, of which one asks for more


class Batching(state.BatchingState):
    """Whether packets come one at a time.  It begins with batches: at the start many may wait."""

    __slots__ = ()

    def __init__(self) -> None:
        self._is_single, self._last, self._quick = False, 0.0, 0

    def takes_one(self, now: float) -> bool:
        """Return whether to take one packet in the go that begins *now*, in seconds."""
        last, self._last = self._last, now
        if not self._is_single:
            return False
        if now - last > QUICK:
            return True
        self._quick += 1
        return self._quick % PROBE != 0

    def took(self, count: int) -> None:
        """Note how many a go that could take more has taken."""
        self._is_single = count <= 1
