"""Handshakes that no packet waits for, one after the other, so that they do not delay urgent ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.session.constants import GREETINGS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable


class Greetings:
    """Peers to call although no packet waits for them: after a start, or when they are new or changed.

    At most GREETINGS_PER_SECOND, evenly spaced, even if time jumps.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, None] = {}  # the numbers of peers, in order
        self._next = -math.inf  # when the next peer may be called

    def add(self, numbers: Iterable[int]) -> None:
        """Add the peers of *numbers* to be called, after those that wait already."""
        self._waiting.update(dict.fromkeys(numbers))

    def next_deadline(self) -> float:
        """Return when take() has a peer to call; infinity if there is none."""
        return self._next if self._waiting else math.inf

    def take(self, now: float) -> int | None:
        """Return the number of a peer to call at *now*; None if none is due yet."""
        if not self._waiting or now < self._next:
            return None
        number = next(iter(self._waiting))
        del self._waiting[number]
        self._next = now + 1 / GREETINGS_PER_SECOND
        return number
