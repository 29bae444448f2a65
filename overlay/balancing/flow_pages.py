"""Flows of services, which the forwarder reports a page at a time on request."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from overlay.link.service_messages import AskFlows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.link.messages import Command
    from overlay.link.service_messages import FlowFilter, FlowRow, Flows

# Ours
PATIENCE = 5.0  # seconds for one page: packets come first


@dataclass(slots=True)
class Page:
    """Some flows, and the position in the table where the next page begins; None after the last page."""

    rows: list[FlowRow] = field(default_factory=list)
    rest: int | None = None


class FlowPages:
    """Requests for flows.  *tell* sends commands to the forwarder."""

    def __init__(self, tell: Callable[[Command], Awaitable[None]]) -> None:
        self._tell = tell
        self._serials = itertools.count(1)
        self._asked: dict[int, tuple[Page, int, trio.Event]] = {}

    async def ask(self, service: int, wanted: FlowFilter, at: int, most: int) -> Page | None:
        """Return at most *most* flows of a service from the position *at* on; None if the forwarder does not answer."""
        serial, page, complete = next(self._serials), Page(), trio.Event()
        self._asked[serial] = page, most, complete
        try:
            with trio.move_on_after(PATIENCE):
                await self._tell(AskFlows(serial, service, at, most, wanted))
                await complete.wait()
        finally:
            del self._asked[serial]
        if not complete.is_set() or (page.rest is not None and page.rest <= at):
            return None
        return page

    def awaits(self, report: Flows) -> bool:
        """Return whether *report* is awaited and has no more flows than were requested."""
        asked = self._asked.get(report.serial)
        if asked is None or not (report.rows or report.is_last):
            return False
        page, most, complete = asked
        return len(page.rows) + len(report.rows) <= most and not complete.is_set()

    def take(self, report: Flows) -> bool:
        """Take a piece of a page; return False if it is not awaited."""
        if not self.awaits(report):
            return False
        page, _, complete = self._asked[report.serial]
        page.rows += report.rows
        if report.is_last:
            page.rest = report.rest
            complete.set()
        return True
