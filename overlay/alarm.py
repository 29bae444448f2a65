"""What wakes a task at its next deadline, or earlier if another one comes before it."""

from __future__ import annotations

import math

import trio


class Alarm:
    """Wakes the one task that waits.  Deadlines are seconds of any one clock."""

    def __init__(self) -> None:
        self._rings, self._due = trio.Event(), -math.inf  # there is no need to wake a task that does not wait

    async def wait(self, due: float, now: float) -> None:
        """Sleep from *now* until *due*, or until woken.  What woke before is forgotten: *due* takes it into account."""
        self._rings, self._due = trio.Event(), due
        with trio.move_on_after(max(0.0, due - now)):
            await self._rings.wait()

    def wake(self) -> None:
        """End the sleep now."""
        self._rings.set()

    def advance(self, due: float) -> None:
        """End the sleep now if *due* is before its end."""
        if due < self._due:
            self.wake()
