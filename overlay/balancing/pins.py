"""Flows of this node itself that the forwarder directs to a server of the node's choice.

Flows that are pinned at about the same time go to the forwarder in one message, and so do flows that are over: with ten
thousand checks every few seconds, a message for each would cost more than the check.  The forwarder's answers show that
it works; it is asked as long as it directs any flows.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import trio

from overlay.balancing.sight import Sight
from overlay.host import clock
from overlay.link.service_messages import NO_ANSWER, Pin
from overlay.services.checks.dialer import NotAskedError
from overlay.wire.bounds import ROWS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from overlay.link.messages import Command
    from overlay.link.service_messages import Pinned

# Ours
PATIENCE = 2.0  # seconds for the forwarder to direct a flow to its server
LINGER = 2.0  # seconds that flows stay pinned: a TCP connection still exchanges packets after it was closed
OVER = 1000  # flows that are over, in one message
LOOK = 0.5  # seconds between two questions whether the forwarder works
QUESTION = 2**63 - 1  # the serial of these questions


class _Batch:
    """Flows that are sent in one command, and the answer."""

    def __init__(self) -> None:
        self.flows: list[tuple[bytes, int, int]] = []
        self.waiting: list[Callable[[NotAskedError | None], None]] = []  # one for each flow
        self.answered = trio.Event()

    def answer(self, refused: frozenset[int]) -> None:
        """Tell the waiting checks that the forwarder directs these flows, except those at *refused* places."""
        for place, led in enumerate(self.waiting):
            led(
                NotAskedError("the forwarder does not direct more flows of checks, or not to this server")
                if place in refused
                else None
            )
        self.answered.set()

    def give_up(self) -> None:
        """Tell the waiting checks that there is no answer."""
        for led in self.waiting:
            led(NotAskedError(f"the forwarder did not answer within {PATIENCE:g} s"))


class Pins:
    """The flows that the forwarder is asked to direct.  *tell* sends commands to it, while run() runs."""

    def __init__(self, tell: Callable[[Command], Awaitable[None]]) -> None:
        self._tell = tell
        self._serials = itertools.count(1)
        self._batches: list[_Batch] = []  # to be sent
        self._over: dict[bytes, float] = {}  # when flows ended, in that order
        self._told: dict[int, _Batch] = {}  # by serial, until they are answered
        self._led: dict[bytes, tuple[int, int]] = {}  # flows that the forwarder directs, and where to
        self.sight = Sight()
        """The record of when the forwarder worked."""
        self._asked_at = -math.inf  # when it was asked whether it works, and has not answered
        self._has_flows, self._has_some, self._in_use = trio.Event(), trio.Event(), trio.Event()

    def everything(self) -> Iterator[Command]:
        """Yield the commands for a new forwarder, once it knows the services and their servers."""
        self.sight.begun(clock.now())
        self._asked_at = -math.inf
        led = [(key, *target) for key, target in self._led.items()]
        for at in range(0, len(led), ROWS):
            yield Pin(NO_ANSWER, led[at : at + ROWS], [])
        for serial, batch in list(self._told.items()):
            yield Pin(serial, batch.flows, [])

    async def run(self) -> None:
        """Send the flows to the forwarder, forever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_asking)
            while True:
                await self._has_some.wait()
                with trio.move_on_after(LINGER):
                    await self._has_flows.wait()
                batches, self._batches = self._batches, []
                over = self._take_over()
                self._has_flows, self._has_some = trio.Event(), trio.Event()
                if self._over:
                    self._has_some.set()
                for batch in batches:
                    serial = next(self._serials)
                    self._told[serial] = batch
                    self.sight.asked(serial, clock.now())
                    over_now, over = over[:OVER], over[OVER:]
                    await self._tell(Pin(serial, batch.flows, over_now))
                    nursery.start_soon(self._expire, serial, batch)
                while over:
                    over_now, over = over[:OVER], over[OVER:]
                    await self._tell(Pin(NO_ANSWER, [], over_now))

    async def _keep_asking(self) -> None:
        """Ask, forever, whether the forwarder works as long as it directs flows that are not over."""
        while True:
            await self._in_use.wait()
            while len(self._led) > len(self._over):
                due = clock.now() + LOOK
                await trio.sleep(LOOK)
                now = clock.now()
                self.sight.looked(due, now)
                if now >= self._asked_at + PATIENCE:  # a full link may have dropped the answer
                    self._asked_at = now
                    self.sight.asked(QUESTION, now)
                    await self._tell(Pin(QUESTION, [], []))
            self._in_use = trio.Event()

    async def pin(self, key: bytes, target: tuple[int, int]) -> None:
        """Direct the flow *key* to *target*, the numbers of a service and its server.

        Raises NotAskedError if the forwarder does not do that.
        """
        answered, found = trio.Event(), list[NotAskedError | None]()

        def led(error: NotAskedError | None) -> None:
            found.append(error)
            answered.set()

        self.lead(key, target, led)
        await answered.wait()
        for error in found:
            if error is not None:
                raise error

    def lead(self, key: bytes, target: tuple[int, int], led: Callable[[NotAskedError | None], None]) -> None:
        """Do the same without waiting; *led* is called when it is done, with the error if it failed."""
        if not self._batches or len(self._batches[-1].flows) >= ROWS:
            self._batches.append(_Batch())
        batch = self._batches[-1]
        batch.flows.append((key, *target))
        batch.waiting.append(led)
        self._led[key] = target
        self._over.pop(key, None)
        self._has_flows.set()
        self._has_some.set()
        self._in_use.set()

    def _take_over(self) -> list[bytes]:
        """Remove and return the flows that have been over for LINGER seconds."""
        until, over = trio.current_time() - LINGER, list[bytes]()
        for key, since in self._over.items():
            if since > until:
                break
            over.append(key)
        for key in over:
            del self._over[key]
            self._led.pop(key, None)
        return over

    async def _expire(self, serial: int, batch: _Batch) -> None:
        """Let no check wait longer than PATIENCE for an answer."""
        with trio.move_on_after(PATIENCE):
            await batch.answered.wait()
        if not batch.answered.is_set():
            self._told.pop(serial, None)
            self.sight.answered(serial, clock.now())  # no answer will come, and the delay is recorded
            batch.give_up()

    def waiting(self) -> int:
        """Return how many flows wait to be directed."""
        return sum(len(each.flows) for each in (*self._batches, *self._told.values()))

    def unpin(self, key: bytes) -> None:
        """Let a flow be balanced like all others again, after LINGER seconds or up to twice that."""
        self._over[key] = trio.current_time()
        self._has_some.set()

    def awaits(self, report: Pinned) -> bool:
        """Return whether *report* is awaited."""
        return self._asked_at > -math.inf if report.serial == QUESTION else report.serial in self._told

    def take(self, report: Pinned) -> bool:
        """Take the forwarder's answer; return False if it is not awaited."""
        if not self.awaits(report):
            return False
        self.sight.answered(report.serial, clock.now())
        batch = self._told.pop(report.serial, None)
        if batch is None:
            self._asked_at = -math.inf
        else:
            batch.answer(frozenset(report.refused))
        return True
