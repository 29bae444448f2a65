"""The counters of services, which the forwarder tells in pieces."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio

from overlay.link.service_messages import AskServices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.link.messages import Command
    from overlay.link.service_messages import ServerCounters, ServiceCounters

# Ours
PATIENCE = 2.0  # seconds for the forwarder to tell its counters
MORE_ROWS = 100  # in an answer than there are servers, some of which may come and go meanwhile


class Counting:
    """Questions for counters.  *tell* tells the forwarder, which has *known* servers now."""

    def __init__(self, tell: Callable[[Command], Awaitable[None]], known: Callable[[], int]) -> None:
        self._tell, self._known = tell, known
        self._serials = itertools.count(1)
        self._asked: dict[int, tuple[list[ServiceCounters], trio.Event]] = {}

    async def ask(self) -> dict[tuple[int, int], ServerCounters] | None:
        """Return the counters by the numbers of service and server; None if the forwarder does not tell."""
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
        return {(row.service, row.server): row for piece in pieces for row in piece.servers}

    def awaits(self, report: ServiceCounters) -> bool:
        """Return whether somebody waits for *report*, and not too much of that answer has come already."""
        asked = self._asked.get(report.serial)
        most = 2 * self._known() + MORE_ROWS
        return asked is not None and sum(1 + len(piece.servers) for piece in asked[0]) <= most

    def take(self, report: ServiceCounters) -> bool:
        """Take a piece of the answer; return False if nobody waits for it."""
        asked = self._asked.get(report.serial)
        if asked is not None:
            asked[0].append(report)
            if report.is_last:
                asked[1].set()
        return asked is not None
