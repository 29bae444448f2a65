"""Questions to the forwarder for its counters, which it answers in pieces while packets flow."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from overlay.forwarder import ForwarderGoneError
from overlay.link.messages import AskCounters

if TYPE_CHECKING:
    from collections.abc import Collection

    from overlay.forwarder import Forwarder
    from overlay.link.messages import Counters, PeerCounters

# Ours
PATIENCE = 5.0  # seconds without a piece, after which the forwarder is busy or hung
SHORT_PATIENCE = 0.5  # seconds, where it told nothing the last time
ROWS_PER_PEER = 2  # in one answer, and in each piece one more: some peers may come and go meanwhile
MORE_ROWS = 100


@dataclass(slots=True)
class Counted:
    """What the forwarder told; all of it if *is_complete*.  It had *patience* seconds for each piece."""

    peers: dict[int, PeerCounters] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False
    patience: float = PATIENCE


@dataclass(slots=True)
class _Asked:
    counted: Counted
    known: Collection[int]
    told: trio.MemorySendChannel[None]  # there is news; closed when there will be no more
    rows: int = 0  # that came, with one for each piece


class CounterQuestions:
    """Those under way, by serial."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._is_silent = False  # the last question was not answered in time, and none since

    async def ask(self, forwarder: Forwarder, serial: int, known: Collection[int]) -> Counted:
        """Return what *forwarder* counted; what it told until then if it falls silent or is gone.

        One that told nothing the last time is not waited for as long, so that who asks again has the rest at once.
        Of peers that are not among the *known* it is not believed anything, and it may not repeat itself for ever.
        """
        told, pieces = trio.open_memory_channel[None](1)
        counted = Counted(patience=SHORT_PATIENCE if self._is_silent else PATIENCE)
        self._asked[serial] = _Asked(counted, known, told)
        with told, pieces:
            try:
                with (
                    trio.move_on_after(counted.patience) as patience,
                    contextlib.suppress(ForwarderGoneError),
                ):
                    await forwarder.send(AskCounters(serial))
                    async for _ in pieces:
                        patience.deadline = trio.current_time() + counted.patience
            finally:
                self._asked.pop(serial, None)
            if patience.cancelled_caught and not counted.peers:
                self._is_silent = True
        return counted

    def awaits(self, report: Counters) -> bool:
        """Return whether somebody waits for *report*, and not too much of that answer has come already."""
        asked = self._asked.get(report.serial)
        return asked is not None and asked.rows < ROWS_PER_PEER * len(asked.known) + MORE_ROWS

    def take(self, report: Counters) -> None:
        """Take one piece of an answer; of one that nobody waits for any more, nothing."""
        self._is_silent = False
        asked = self._asked.get(report.serial)
        if asked is None:
            return
        asked.rows += 1 + len(report.peers)
        counted = asked.counted
        before = len(counted.peers)
        counted.peers.update((row.peer, row) for row in report.peers if row.peer in asked.known)
        counted.drops = report.drops
        if report.is_last:
            counted.is_complete = True
            del self._asked[report.serial]
            asked.told.close()
        elif len(counted.peers) > before:
            with contextlib.suppress(trio.WouldBlock):  # who asked has not looked yet
                asked.told.send_nowait(None)

    def end(self) -> None:
        """Let all who ask have what was told: the forwarder is gone."""
        self._is_silent = False
        for asked in self._asked.values():
            asked.told.close()
        self._asked.clear()
