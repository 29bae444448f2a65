"""Requests for the forwarder's counters, which it answers in parts while packets flow."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from overlay.link.messages import AskCounters
from overlay.supervision.forwarder import ForwarderGoneError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from overlay.link.messages import Counters, PeerCounters
    from overlay.supervision.forwarder import Forwarder

T = TypeVar("T")

# Ours
PATIENCE = 5.0  # seconds without a part of the answer until the forwarder counts as busy or hung
SHORT_PATIENCE = 0.5  # seconds, if it did not answer the last time
ROWS_PER_PEER = 2  # in one answer, plus one for each part: some peers may come and go meanwhile
MORE_ROWS = 100
LATE = 64  # questions that were given up, but may still be answered


@dataclass(slots=True)
class Counted:
    """The forwarder's answer, complete if *is_complete*.  It had *patience* seconds for each part."""

    peers: dict[int, PeerCounters] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False
    patience: float = PATIENCE


@dataclass(slots=True)
class _Asked:
    counted: Counted
    known: Collection[int]
    told: trio.MemorySendChannel[None]  # there is news; closed at the end
    rows: int = 0  # received, plus one for each part

    @property
    def rows_left(self) -> int:
        """How many more may come before the forwarder repeats itself."""
        return ROWS_PER_PEER * len(self.known) + MORE_ROWS - self.rows


class SharedAnswer(Generic[T]):
    """An answer that takes a while, made once for all tasks that wait for it.

    A task that asks while an answer is being made shares the next one with all others that do: an answer is never older
    than the question, and only one is made at a time.
    """

    def __init__(self) -> None:
        self._making, self._waiting = trio.Lock(), 0
        self._begun = 0  # how many answers were started
        self._made: tuple[int, T] | None = None  # the last answer and its number, while it may be needed

    async def take(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *make*, which is called for this task or for another that waits."""
        before, self._waiting = self._begun, self._waiting + 1
        try:
            async with self._making:
                if self._made is None or self._made[0] <= before:
                    self._begun += 1
                    self._made = self._begun, await make()
                return self._made[1]
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._made = None


class CounterQuestions:
    """The questions that wait for answers, by serial."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._late: dict[
            int, int
        ] = {}  # rows that may still come, by the serial of a question that was given up
        self._is_silent = False  # the last question was not answered in time, and nothing has come since

    async def ask(
        self, forwarder: Forwarder, serial: int, known: Collection[int], *, of_all: bool = True
    ) -> Counted:
        """Return the counters of *forwarder* for all peers, or only for the *known* ones.

        If the forwarder falls silent or is gone, the answer is what it had sent until then.

        A forwarder that sent nothing the last time gets less time, so that repeated requests do not wait for long.
        Rows about peers that are not *known* are ignored, and the number of rows is bounded.
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
                    await forwarder.send(AskCounters(serial, [] if of_all else list(known)))
                    async for _ in pieces:
                        patience.deadline = trio.current_time() + counted.patience
            finally:
                self._give_up(serial)
            if patience.cancelled_caught and not counted.peers:
                self._is_silent = True
        return counted

    def awaits(self, report: Counters) -> bool:
        """Return whether *report* belongs to an answer that was requested, and does not make it too long.

        The answer may no longer be awaited: a busy forwarder may be late.
        """
        asked = self._asked.get(report.serial)
        return (self._late.get(report.serial, 0) if asked is None else asked.rows_left) > 0

    def take(self, report: Counters) -> None:
        """Take one part of an answer; ignore it if the answer is no longer awaited."""
        self._is_silent = False
        asked = self._asked.get(report.serial)
        if asked is None:
            self._take_late(report)
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
            with contextlib.suppress(trio.WouldBlock):  # the waiting task has not looked yet
                asked.told.send_nowait(None)

    def end(self) -> None:
        """End all questions with what was reported so far: the forwarder is gone."""
        self._is_silent = False
        for asked in self._asked.values():
            asked.told.close()
        self._asked.clear()
        self._late.clear()

    def _give_up(self, serial: int) -> None:
        """Stop waiting for an incomplete answer; at most LATE of these are remembered."""
        asked = self._asked.pop(serial, None)
        if asked is not None:
            self._late[serial] = asked.rows_left
            if len(self._late) > LATE:
                del self._late[next(iter(self._late))]

    def _take_late(self, report: Counters) -> None:
        if report.is_last:
            self._late.pop(report.serial, None)
        elif report.serial in self._late:
            self._late[report.serial] -= 1 + len(report.peers)
