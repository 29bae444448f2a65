"""The notes on this host: its present problems, each logged once when it begins and once when it ends.

Cheap checks run on each request.  Packet filters are read by programs, and files may be on a disk that hangs: both are
checked in a worker thread, when the node has started, when the peers file or the host's network changed, and on
request, but only for a small part of the time, unless an operator waits for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from overlay.host import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.diagnosis.finding import Finding
    from overlay.host.firewall.rules import Firewall

# Ours
SHARE = 0.1  # of the time, at most, that reading the packet filters takes
LEAST_PAUSE = 0.5  # seconds between two readings
PATIENCE = 2.0  # seconds that a request waits for a reading; after that, the last notes are returned
FRESH_PATIENCE = 6.0  # seconds, if it must not be one that has begun before

log = logging.getLogger("overlay")


@dataclass(frozen=True, slots=True)
class Reading:
    """The results of reading in a worker thread: packet filters, and findings on files open to others."""

    firewall: Firewall
    files: tuple[Finding, ...] = ()


class HostNotes:
    """The findings of *look* on the host, as sentences; *look* gets the last result of *read*."""

    def __init__(
        self,
        look: Callable[[Reading | None], list[Finding]],
        read: Callable[[], Reading],
    ) -> None:
        self._look, self._read = look, read
        self._reading: Reading | None = None
        self._not_before = 0.0
        self._wanted, self._hurried, self._read_once_more = trio.Event(), trio.Event(), trio.Event()
        self._is_reading = False
        self._thread = trio.CapacityLimiter(1)
        self._found: list[Finding] = []

    @property
    def found(self) -> list[Finding]:
        """The last findings."""
        return list(self._found)

    @property
    def sentences(self) -> list[str]:
        """The last findings, as sentences."""
        return list(map(str, self._found))

    @property
    def kinds(self) -> set[str]:
        """The kinds of the last findings."""
        return {each.name for each in self._found}

    def look(self) -> None:
        """Update the sentences, except for what is read, and log the changes.

        For a finding that is over, only the problem is logged: its remedy should no longer be followed.
        """
        before, self._found = self._found, self._look(self._reading)
        for each in self._found:
            if each not in before:
                log.warning("%s", each)
        for each in before:
            if each not in self._found:
                log.info("no longer true: %s", each.problem)

    def want(self) -> None:
        """Request that packet filters and files are checked soon."""
        self._wanted.set()

    async def look_closely(self, *, is_fresh: bool = False) -> None:
        """Update the sentences, with the present or recent state of packet filters and files.

        With *is_fresh* they are read again in any case, from now on, except on a host where that takes very long.
        """
        if is_fresh:
            with trio.move_on_after(FRESH_PATIENCE):
                await self._read_afresh()
        elif clock.now() >= self._not_before or self._wanted.is_set():
            told = self._read_once_more
            self.want()
            with trio.move_on_after(PATIENCE):
                await told.wait()
        self.look()

    async def _read_afresh(self) -> None:
        """Return after a reading that has not begun yet."""
        if self._is_reading:
            await self._read_once_more.wait()
        told = self._read_once_more
        self.want()
        self._hurried.set()
        await told.wait()

    async def keep_reading(self) -> None:
        """Read packet filters and files whenever requested."""
        while True:
            await self._wanted.wait()
            self._wanted, self._hurried = trio.Event(), trio.Event()
            self._is_reading, began = True, clock.now()
            reading = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True, limiter=self._thread)
            took = clock.now() - began
            known = self._reading.firewall.unread if self._reading is not None else ()
            for reason in reading.firewall.unread:
                if reason not in known:
                    log.debug("packet filters are not all known: %s", reason)
            self._reading = reading
            pause = max(LEAST_PAUSE, took / SHARE)
            self._not_before = clock.now() + pause
            self.look()
            told, self._read_once_more, self._is_reading = self._read_once_more, trio.Event(), False
            told.set()
            with trio.move_on_after(pause):
                await self._hurried.wait()
