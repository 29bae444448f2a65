"""How fast a capture may read: it gives way to whatever else the processors do, the packets themselves above all.

The scheduler alone does not see to that.  With autogroups, as most distributions have them (sched(7)), and with control
groups, the priority of a process counts among those of its own group only, so that a capture in one session has as
much of a processor as a forwarder in another.  So a capture uses no more time than what is left idle, and a little in
any case.
"""

from __future__ import annotations

# Ours
LEAST_SHARE = 0.02  # of one processor, where none is idle: about a thousand packets a second
SPARE = 0.5  # of a processor that stays idle: what wakes then finds one at once
BURST = 0.02  # seconds of a processor that may be used at once
LOOK = 0.1  # seconds over which it is seen what is idle: the kernel counts in steps of 0.01
SHORTEST_REST = 0.001  # seconds: what is not worth a rest is saved up
LONGEST_REST = 0.25  # seconds: then it is looked again


class Pace:
    """An allowance of processor time, which grows with the time that goes by: by *share* of it.

    All times are in seconds: *now* of a clock, *used* of the capture's own time on a processor, *idle* of what all
    processors together have been idle, since some moment.
    """

    def __init__(self, now: float, used: float, idle: float) -> None:
        self.share = 1.0  # until it is known what is idle
        self._allowance = BURST
        self._now, self._used = now, used
        self._looked, self._used_at_look, self._idle = now, used, idle

    def needs_look(self, now: float) -> bool:
        """Return whether look() is due."""
        return now - self._looked >= LOOK

    def look(self, now: float, used: float, idle: float) -> None:
        """Set the share to what nobody else has used since the last look, in processors, less SPARE, but at least
        LEAST_SHARE.
        """
        passed = now - self._looked
        if passed > 0:
            free = idle - self._idle + used - self._used_at_look
            self.share = min(1.0, max(LEAST_SHARE, free / passed - SPARE))
        self._looked, self._used_at_look, self._idle = now, used, idle

    def rest(self, now: float, used: float) -> float:
        """Return for how many seconds nothing is to be read, 0 while the allowance lasts."""
        earned = (now - self._now) * self.share
        self._allowance = min(BURST, self._allowance + earned) - (used - self._used)
        self._now, self._used = now, used
        rest = -self._allowance / self.share
        return min(LONGEST_REST, rest) if rest >= SHORTEST_REST else 0.0
