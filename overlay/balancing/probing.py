"""Runs the checks of a director when they are due, each in a task of its own: one that hangs delays no other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from overlay.balancing import journal
from overlay.host import clock, descriptors
from overlay.services import checks
from overlay.services.checks.way import NotAskedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.balancing.way import Way
    from overlay.services.watching import Probe, Watching

# Ours
GRAIN = (
    0.02  # seconds between two looks at what is due: what is due at about the same time is asked for together
)
AGAIN = 1.0  # seconds until a check is tried again that this node could not make
SPARE = 256  # descriptors that checks leave for all else that the agent opens
AT_ONCE = 256  # checks that begin at a time: if there is not the time for all, they are late and do not fail
LATE = 5.0  # seconds, after which an operator is told
EACH = 2  # descriptors that a check may take


class Probing:
    """The checks that run.  *open_way* returns the way of one; *changed* is called when one says something new."""

    def __init__(
        self,
        watching: Watching,
        open_way: Callable[[Probe], Way],
        waiting: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        """*waiting* tells of how many checks the forwarder has not said yet that it leads them."""
        self._watching, self._open_way, self._changed = watching, open_way, changed
        self._waiting = waiting
        self._wake, self._wakes_at = trio.Event(), math.inf
        self._running = 0
        self._troubles = journal.Troubles()

    def wake(self) -> None:
        """Have what is due looked for at once: the checks are others than before, or one is wanted now."""
        self._wake.set()

    async def run(self) -> None:
        """Run checks, for ever."""
        wanted, limit = 0, 0
        async with trio.open_nursery() as nursery:
            while True:
                now = clock.now()
                if wanted != SPARE + EACH * len(self._watching):
                    wanted = SPARE + EACH * len(self._watching)
                    limit = descriptors.raise_limit(wanted)
                most = max(1, (limit - SPARE) // EACH)
                room = max(0, min(most - self._running, AT_ONCE - self._waiting()))
                for probe in self._watching.due(now, room):
                    self._running += 1
                    nursery.start_soon(self._check, probe)
                due = self._watching.next_deadline()
                if now - due > LATE:
                    is_short = limit < wanted and self._running + AT_ONCE >= most
                    self._troubles.log_late(now - due, limit if is_short else None, now)
                self._wake, self._wakes_at = trio.Event(), max(now + GRAIN, due)
                with trio.move_on_after(max(GRAIN, due - now)):
                    await self._wake.wait()

    async def _check(self, probe: Probe) -> None:
        way = self._open_way(probe)
        try:
            result = await checks.run(probe.check, way)
        except NotAskedError as error:
            now = clock.now()
            self._watching.postpone(probe, now + AGAIN)
            self._troubles.log_not_asked(probe, str(error), now)
        else:
            if way.is_interrupted and not result.is_good:
                self._watching.postpone(probe, clock.now() + AGAIN)
            elif self._watching.finish(probe, result, clock.now()):
                self._changed()
        finally:
            way.close()
            self._running -= 1
        if self._watching.next_deadline() < self._wakes_at:
            self._wake.set()
