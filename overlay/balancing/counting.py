"""The counters of services, which the forwarder reports in pieces, and their rates."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from overlay import ticks
from overlay.host import clock
from overlay.link.service_messages import AskServices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.link.messages import Command
    from overlay.link.service_messages import ServerCounters, ServiceCounters, ServiceTotals

# Ours
PATIENCE = 2.0  # seconds for the forwarder to report its counters
MORE_ROWS = 100  # in an answer than there are servers and services, some of which may come and go meanwhile
LEAST_PAUSE = 2.0  # seconds between two counts from which rates are computed
SHARE = 0.02  # of the time, at most, that counting takes
LEAST_TIME = 1.0  # seconds over which a rate is computed, at least
COUNTS = 3  # to keep, so that one of them is LEAST_TIME old


@dataclass(frozen=True, slots=True)
class Rate:
    """Connections, packets and bytes per second."""

    connections: float
    packets: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters at the time *at*, by the number of the service, or of the service and the server."""

    at: float
    servers: dict[tuple[int, int], ServerCounters] = field(default_factory=dict)
    services: dict[int, ServiceTotals] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)  # of packets that belong to no service


class Counting:
    """Requests for counters.  *tell* sends commands to the forwarder, which has *known* servers and services now."""

    def __init__(self, tell: Callable[[Command], Awaitable[None]], known: Callable[[], int]) -> None:
        self._tell, self._known = tell, known
        self._serials = itertools.count(1)
        self._asked: dict[int, tuple[list[ServiceCounters], trio.Event]] = {}
        self._before: deque[Counts] = deque(maxlen=COUNTS)  # the latest last
        self._wake = trio.Event()

    async def ask(self) -> Counts | None:
        """Return the counters; None if the forwarder does not report them in time."""
        serial, complete = next(self._serials), trio.Event()
        pieces: list[ServiceCounters] = []
        self._asked[serial] = pieces, complete
        try:
            with trio.move_on_after(PATIENCE):
                await self._tell(AskServices(serial))
                await complete.wait()
        finally:
            del self._asked[serial]
        if not complete.is_set():
            return None
        return Counts(
            pieces[-1].at,
            {(row.service, row.server): row for piece in pieces for row in piece.servers},
            {row.service: row for piece in pieces for row in piece.services},
            pieces[-1].drops,
        )

    def awaits(self, report: ServiceCounters) -> bool:
        """Return whether *report* is awaited and its answer is not too long already."""
        asked = self._asked.get(report.serial)
        most = 2 * self._known() + MORE_ROWS
        return (
            asked is not None
            and sum(1 + len(piece.servers) + len(piece.services) for piece in asked[0]) <= most
        )

    def take(self, report: ServiceCounters) -> bool:
        """Take a piece of the answer; return False if it is not awaited."""
        asked = self._asked.get(report.serial)
        if asked is not None:
            asked[0].append(report)
            if report.is_last:
                asked[1].set()
        return asked is not None

    # Rates

    def wake(self) -> None:
        """Start counting, if keep_counting() waits for services."""
        self._wake.set()

    async def keep_counting(self) -> None:
        """Count every few seconds, forever, so that rates are known when somebody asks."""
        while True:
            self._wake = trio.Event()
            if not self._known():
                await self._wake.wait()
                continue
            began = clock.now()
            self.keep(await self.ask())
            await ticks.about(max(LEAST_PAUSE, (clock.now() - began) / SHARE))

    def keep(self, counts: Counts | None) -> None:
        """Keep *counts* for rates; None, for unknown counters, makes all earlier counts too old for them."""
        if counts is None:
            self._before.clear()
        else:
            self._before.append(counts)

    def forget(self) -> None:
        """Forget all counts: the counters of another forwarder start at 0."""
        self._before.clear()

    def before(self, counts: Counts) -> Counts | None:
        """Return the last counts at least LEAST_TIME before *counts*; None if there are none."""
        return next((each for each in reversed(self._before) if counts.at - each.at >= LEAST_TIME), None)


def rate(
    now: ServerCounters | ServiceTotals | None, before: ServerCounters | ServiceTotals | None, seconds: float
) -> Rate | None:
    """Return the rate over *seconds*; None if one of the two counters is not known, or was reset."""
    if now is None or before is None:
        return None
    grown = (
        now.connections - before.connections,
        now.packets - before.packets,
        now.bytes - before.bytes,
    )
    return None if min(grown) < 0 else Rate(*(each / seconds for each in grown))
