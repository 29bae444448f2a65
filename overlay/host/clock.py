"""The two clocks of the edge.  The core reads neither: it is given ``now``."""

from __future__ import annotations

import time


def now() -> float:
    """Return the seconds since boot, including suspend: keys grow old while a laptop sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_ns() -> int:
    """Return nanoseconds since 1970, only for TAI64N and stamps of settings: this clock may jump in both directions."""
    return time.time_ns()
