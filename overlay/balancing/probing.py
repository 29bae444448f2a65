"""Runs the checks of a director when they are due, so that one that hangs does not delay the others.

Checks that are a single exchange run together (overlay.balancing.exchanges), each of the others in a task of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import trio

from overlay.alarm import Alarm
from overlay.balancing import journal
from overlay.host import clock
from overlay.host.process import descriptors
from overlay.services import checks
from overlay.services.checks.dialer import NotAskedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.balancing.dialer import TunnelDialer
    from overlay.balancing.exchanges import Exchanges
    from overlay.services.checking import Result
    from overlay.services.watching import DueCheck, Watching

# Ours
GRAIN = (
    0.02  # seconds between two looks for due checks, so that those due at about the same time start together
)
AGAIN = 1.0  # seconds until a check is tried again that this node could not make
SPARE = 256  # descriptors that checks leave for everything else that the agent opens
AT_ONCE = 256  # checks that begin at a time: if time is short, checks are late, but do not fail
LATE = 5.0  # seconds of delay from which an operator is informed
EACH = 2  # descriptors that a check may need


class Probing:
    """The running checks.  *open_dialer* returns the dialer of one; *changed* is called if a result changes a state."""

    def __init__(
        self,
        watching: Watching,
        open_dialer: Callable[[DueCheck], TunnelDialer],
        exchanges: Exchanges,
        waiting: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        """*exchanges* makes the checks that are a single exchange, while its run() runs.  *waiting* returns for how
        many checks the forwarder has not confirmed yet that it directs them.
        """
        self._watching, self._open_dialer, self._changed = watching, open_dialer, changed
        self._exchanges, self._waiting = exchanges, waiting
        self._alarm = Alarm()
        self._running = 0
        self._troubles = journal.Troubles()

    def wake(self) -> None:
        """Look for due checks at once: the checks have changed, or one is wanted now."""
        self._alarm.wake()

    async def run(self) -> None:
        """Run checks, forever."""
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
                    dialer = self._open_dialer(probe)
                    exchange = checks.as_exchange(probe.check, dialer)
                    if exchange is None:
                        nursery.start_soon(self._check, probe, dialer)
                    else:
                        self._exchanges.begin(dialer, exchange, functools.partial(self._end, probe, dialer))
                due = self._watching.next_deadline()
                if now - due > LATE:
                    is_short = limit < wanted and self._running + AT_ONCE >= most
                    self._troubles.log_late(now - due, limit if is_short else None, now)
                await self._alarm.wait(max(now + GRAIN, due), now)

    async def _check(self, probe: DueCheck, dialer: TunnelDialer) -> None:
        found: Result | NotAskedError | None = None
        try:
            found = await checks.run(probe.check, dialer)
        except NotAskedError as error:
            found = error
        finally:
            self._end(probe, dialer, found)

    def _end(self, probe: DueCheck, dialer: TunnelDialer, found: Result | NotAskedError | None) -> None:
        """Handle the result of a check, or why it could not be made; None for a check that was cancelled."""
        dialer.close()
        self._running -= 1
        now = clock.now()
        if isinstance(found, NotAskedError):
            self._watching.postpone(probe, now + AGAIN)
            self._troubles.log_not_asked(probe, str(found), now)
        elif found is not None and not found.is_good and dialer.was_blind:
            self._watching.postpone(probe, now + AGAIN)
        elif found is not None and self._watching.finish(probe, found, now):
            self._changed()
        self._alarm.advance(self._watching.next_deadline())
