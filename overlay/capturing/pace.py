"""How fast a capture may read: everything else that needs a processor goes first, above all the packets themselves.

The scheduler alone does not ensure that.  With autogroups, which most distributions use (sched(7)), and with control
groups, the priority of a process only counts within its own group, so a capture in one session gets as much of a
processor as a forwarder in another.  So a capture uses only time that is left idle, but always at least a little.
"""

from __future__ import annotations

# Ours
LEAST_SHARE = 0.02  # of one processor, if none is idle: about a thousand packets a second
SPARE = 0.5  # of a processor that stays idle for whatever wakes up
BURST = 0.02  # seconds of processor time that may be used at once
LOOK = 0.1  # seconds over which idle time is measured: the kernel counts in steps of 0.01
SHORTEST_REST = 0.001  # seconds: shorter pauses are saved up
LONGEST_REST = 0.25  # seconds: then idle time is measured again


class Pace:
    """An allowance of processor time, which grows with time by the factor *share*.

    All times are in seconds: *now* of a clock, *used* is the capture's own processor time, *idle* the idle time of all
    processors together, each since some moment.
    """

    def __init__(self, now: float, used: float, idle: float) -> None:
        self.share = 1.0  # until the idle time is known
        self._allowance = BURST
        self._now, self._used = now, used
        self._looked, self._used_at_look, self._idle = now, used, idle

    def needs_look(self, now: float) -> bool:
        """Return whether look() is due."""
        return now - self._looked >= LOOK

    def look(self, now: float, used: float, idle: float) -> None:
        """Set the share to the idle time since the last look, in processors, less SPARE, but at least LEAST_SHARE."""
        passed = now - self._looked
        if passed > 0:
            free = idle - self._idle + used - self._used_at_look
            self.share = min(1.0, max(LEAST_SHARE, free / passed - SPARE))
        self._looked, self._used_at_look, self._idle = now, used, idle

    def rest(self, now: float, used: float) -> float:
        """Return for how many seconds to pause reading, 0 while the allowance lasts."""
        earned = (now - self._now) * self.share
        self._allowance = min(BURST, self._allowance + earned) - (used - self._used)
        self._now, self._used = now, used
        rest = -self._allowance / self.share
        return min(LONGEST_REST, rest) if rest >= SHORTEST_REST else 0.0
