"""How a capture leaves the processors to the packets: overlay/capturing/pace.py, on this machine."""

from __future__ import annotations

import time

from overlay.capturing.pace import Pace
from overlay.host import priority
from overlay.host.priority import IdleTime


class GivingWay:
    """Make this process give way from now on, until this is closed."""

    def __init__(self) -> None:
        priority.give_way()
        self._idle = IdleTime()
        self._pace = Pace(time.monotonic(), time.thread_time(), self._idle.seconds())

    def rest(self) -> float:
        """Return for how many seconds nothing is to be read."""
        now, used = time.monotonic(), time.thread_time()
        if self._pace.needs_look(now):
            self._pace.look(now, used, self._idle.seconds())
        return self._pace.rest(now, used)

    def close(self) -> None:
        """Take the processor as anything else does."""
        self._idle.close()
        priority.stop_giving_way()
