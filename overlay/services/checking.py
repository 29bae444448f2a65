"""One check of one server, without I/O: when it is due, and what its results mean.

The semantics are those of keepalived: a server that is up is down after more than *retries* failures in a row; before
the first result, one failure suffices.  Times are seconds of any clock that only moves forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.service import UP

if TYPE_CHECKING:
    from peers.service import Check


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found: *reason* is why it failed, or what the server answered.

    *weight* is the server's weight from now on, as a script reported it; None leaves it to the file.
    """

    is_good: bool
    reason: str
    weight: int | None = None


class Checking:
    """The state of one check, begun at *now*; *share*, from 0 to 1, is the part of the warm-up to wait for.

    *version* is the IP version that it uses.
    """

    def __init__(self, check: Check, now: float, share: float, version: int = 4) -> None:
        self.check, self.version = check, version
        self.is_up = check.start == UP
        self.result: Result | None = None  # the last one
        self.failures = 0  # in a row
        self.successes = 0
        warmup = check.every if check.warmup is None else check.warmup
        self._due = now + warmup * share

    def next_deadline(self) -> float:
        """Return when to run it; infinity while it runs."""
        return self._due

    def begin(self) -> None:
        """Note that it runs."""
        self._due = math.inf

    def run_now(self, now: float) -> None:
        """Run it at once, unless it is running."""
        if self._due != math.inf:
            self._due = now

    def postpone(self, until: float) -> None:
        """Postpone it to *until*: it could not run, and there is no result."""
        self._due = until

    def finish(self, result: Result, now: float) -> bool:
        """Take a result, and return whether the check's verdict on the server has changed."""
        before, is_first = self._verdict(), self.result is None
        self.result = result
        self._due = now + self.check.every
        if result.is_good:
            self.failures, self.successes = 0, self.successes + 1
            self.is_up = self.is_up or self.successes >= self.check.rise
        else:
            self.failures, self.successes = self.failures + 1, 0
            if self.is_up and not is_first and self.failures <= self.check.retries:
                self._due = now + self.check.retry_delay
            else:
                self.is_up = False
        return self._verdict() != before

    def _verdict(self) -> tuple[bool, bool, int | None]:
        result = self.result
        return self.is_up, result is None, result.weight if result is not None else None
