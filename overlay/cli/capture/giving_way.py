"""Gives packets precedence over a capture on the processors: overlay/capturing/pace.py on this machine."""

from __future__ import annotations

import time

from overlay.capturing.pace import Pace
from overlay.host.process import priority
from overlay.host.process.priority import IdleTime


class GivingWay:
    """Lowers the priority of this process until it is closed."""

    def __init__(self) -> None:
        priority.give_way()
        self._idle = IdleTime()
        self._pace = Pace(time.monotonic(), time.thread_time(), self._idle.seconds())

    def rest(self) -> float:
        """Return for how many seconds to pause reading."""
        now, used = time.monotonic(), time.thread_time()
        if self._pace.needs_look(now):
            self._pace.look(now, used, self._idle.seconds())
        return self._pace.rest(now, used)

    def close(self) -> None:
        """Restore the normal priority."""
        self._idle.close()
        priority.stop_giving_way()
