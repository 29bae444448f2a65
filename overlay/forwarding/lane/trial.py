"""Whether a lane's datagrams arrive: tested with probes while packets flow, because a firewall on the path may block
one port and not another.
"""

from __future__ import annotations

import math

# Ours
ATTEMPTS = 3  # probes in a row without an answer, after which a lane is given up
PATIENCE = 1.0  # seconds for an answer
INTERVAL = 10.0  # seconds between an answer and the next probe
PAUSE = 60.0  # seconds after which a lane that was given up is tried again


class Trial:
    """The probes of one lane of one session.  Times are seconds of CLOCK_BOOTTIME."""

    __slots__ = ("_asked", "_first", "_heard", "due", "is_open")

    def __init__(self, now: float, *, is_open: bool = False) -> None:
        """*is_open*: what it sends arrived under the keypair before this one."""
        self.is_open = is_open
        self._asked = self._heard = 0  # probes so far, and the last that was answered
        self._first = 1  # of those in a row
        self.due = now

    @property
    def is_waiting(self) -> bool:
        """Whether an answer may still arrive; otherwise nothing is to be done until packets flow."""
        return self._heard < self._asked and self._first <= self._asked

    def turn(self, now: float, *, is_flowing: bool) -> int | None:
        """Return the identifier of the probe that should be sent now, None for none; ``due`` says when to ask again."""
        if now < self.due:
            return None
        if self.is_waiting and self._asked - self._first + 1 >= ATTEMPTS:
            self.is_open = False
            self._first, self.due = self._asked + 1, now + PAUSE
            return None
        if not is_flowing and not self.is_waiting:
            self.due = now
            return None
        self._asked += 1
        self.due = now + PATIENCE
        return self._asked

    def answered(self, identifier: int, now: float) -> bool:
        """Take an answer; return whether it was expected, and is new."""
        if not self._heard < identifier <= self._asked:
            return False
        self._heard, self._first, self.is_open = identifier, self._asked + 1, True
        self.due = now + INTERVAL
        return True

    def next(self) -> float:
        """Return when to call turn() whether or not packets flow; math.inf where it can wait until they do."""
        return self.due if self.is_waiting else math.inf
