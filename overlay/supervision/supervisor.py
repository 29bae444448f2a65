"""Keeps a forwarder running: starts it, gives it its state, receives its reports, and replaces it when it ends.

A forwarder is trusted no more than the network: one that hangs, or reports without end, is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, TypeAlias

import trio

from overlay import ticks
from overlay.errors import HostError
from overlay.host import clock
from overlay.link.messages import OWN, AskStation, Counters, Handled, Handshake, PingPeer, Ponged, Station
from overlay.supervision.captures import Captures
from overlay.supervision.counters import CounterQuestions
from overlay.supervision.forwarder import ForwarderGoneError, OtherReleaseError
from overlay.supervision.policing import Answer, Policing, kind_of
from overlay.supervision.single_answers import Questions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from overlay.link.messages import Command, Report, ServiceReport
    from overlay.supervision.counters import Counted
    from overlay.supervision.forwarder import Forwarder

# Ours
REPORTS_AT_ONCE = 32  # reports taken before other tasks have their turn
# Seconds for which a new forwarder may accept no command and not become ready; it normally needs 0.3 in all
START_TIME = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before a forwarder that died is restarted
PATIENCE = 2.0  # seconds for the answer about one station
STEADY_TIME = 60.0  # seconds that a forwarder must run for the pause to start over
PROOF_INTERVAL = 10.0  # seconds between two questions whether the forwarder still answers
HANG_TIME = 30.0  # seconds without an answer or any other report until it is ended
LAST_LOOK = 1.0  # seconds more, in case the agent itself was late to read reports

Told: TypeAlias = "tuple[Command, Sequence[int]]"
"""A command, and the descriptors that go with it."""
Take: TypeAlias = "Callable[[Report | None], Awaitable[None]]"
"""Takes a report that is not an answer; None for a message that is not a report."""

log = logging.getLogger("overlay")


class Supervisor:
    """The current forwarder of a node."""

    def __init__(self, start: Callable[[], Forwarder]) -> None:
        """Start the first forwarder, whose interpreter takes a while.  Raises HostError."""
        self.forwarder = start()
        self._introduced = trio.Event()  # the forwarder has received its introduction, or ended before
        self.trouble: str | None = None
        """Why there is no forwarder at the moment; None if there is one."""
        self.restarts = 0
        """How often a forwarder that ended was replaced."""
        self._start = start
        self._serials = itertools.count(1)
        self._counters = CounterQuestions()
        self._pings, self._stations = Questions[Ponged](), Questions[Station]()
        self._heard = 0  # reports, of all forwarders
        self.captures = Captures(self.tell)

    @property
    def pings_waiting(self) -> int:
        """Return how many in-band pings wait for their answer."""
        return len(self._pings)

    async def count(self, peers: Collection[int], *, of_all: bool = True) -> Counted:
        """Ask for the counters of *peers*, which are all peers if *of_all*.

        If the forwarder is busy or gone, the answer is what it sent in time.
        """
        return await self._counters.ask(self.forwarder, next(self._serials), peers, of_all=of_all)

    async def ping(self, peer: int, timeout: float) -> Ponged | None:
        """Ask for an in-band ping of *peer*; return None if it was not answered in *timeout* seconds.

        Raises ForwarderGoneError.
        """
        return await self._pings.ask(self.forwarder, PingPeer(peer, next(self._serials)), timeout)

    async def locate(self, *, mac: bytes | None = None, address: bytes | None = None) -> Station | None:
        """Ask where the station with the Ethernet address *mac*, or the IP *address*, is; None without an answer."""
        question = AskStation(next(self._serials), mac, address)
        with contextlib.suppress(ForwarderGoneError):
            return await self._stations.ask(self.forwarder, question, PATIENCE)
        return None

    async def tell(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Send a command; if the forwarder is gone, keep() replaces it, and its successor is told everything.

        Commands that arise during an introduction wait for its end: they may depend on it, and are newer.
        """
        forwarder = self.forwarder
        if not self._introduced.is_set():
            await self._introduced.wait()
        with contextlib.suppress(ForwarderGoneError):
            await forwarder.send(command, descriptors)

    async def bring_up(self, nursery: trio.Nursery, introduction: Iterable[Told]) -> list[str]:
        """Send a new forwarder its introduction, and wait until it is ready; return notes.  Raises HostError.

        The *introduction* describes the state at the time of the call.
        """
        forwarder, introduced, told = (
            self.forwarder,
            self._introduced,
            [*introduction, *self.captures.everything()],
        )
        nursery.start_soon(forwarder.hear)
        notes: list[str] | None = None
        try:
            with trio.move_on_after(START_TIME) as patience:
                try:
                    for command, descriptors in told:
                        await forwarder.send(command, descriptors)
                        patience.deadline = trio.current_time() + START_TIME
                finally:
                    introduced.set()
                notes = await forwarder.get_ready()
        except OtherReleaseError as error:
            await forwarder.stop()
            raise HostError(str(error)) from None
        except ForwarderGoneError:
            raise HostError(f"the forwarder did not start: {await forwarder.stop()}") from None
        if notes is None:
            await forwarder.stop()
            raise HostError(f"the forwarder was not ready and accepted no command for {START_TIME:g} s")
        return notes

    async def restart(self, nursery: trio.Nursery, introduction: Iterable[Told]) -> list[str]:
        """Start another forwarder in place of one that ended; return notes.  Raises HostError."""
        self.forwarder, self._introduced = self._start(), trio.Event()
        return await self.bring_up(nursery, introduction)

    async def keep(
        self,
        take: Take,
        count: Callable[[], int],
        restart: Callable[[], Awaitable[None]],
        awaits: Callable[[ServiceReport], bool],
    ) -> None:
        """Pass the forwarder's reports, of as many peers as *count* returns, to *take*.

        *awaits* tells whether a question about services waits for an answer.  When the forwarder ends, *restart*
        replaces it, or raises HostError.
        """
        pause = FIRST_PAUSE
        while True:
            began = clock.now()
            try:
                await self._take_reports(self.forwarder, take, count, awaits)
            except ForwarderGoneError:
                log.error("forwarder ended unexpectedly, starting another: %s", await self.forwarder.stop())  # noqa: TRY400  this process has no error
            self._counters.end()
            if clock.now() - began > STEADY_TIME:
                pause = FIRST_PAUSE
            while True:
                await trio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                try:
                    await restart()
                except HostError as error:
                    self.trouble = f"no forwarder is running, so no packets pass: {error}"
                    # This does not end the agent: while it runs, the overlay's packets do not leave unencrypted.
                    log.error("forwarder not restarted, trying again in %g s: %s", pause, error)  # noqa: TRY400  it says enough
                else:
                    self.trouble = None
                    self.restarts += 1
                    break

    async def watch(self) -> None:
        """End a forwarder that no longer reports although its process runs; keep() starts another.

        A forwarder that is so busy that answers wait behind other reports does not count as hung.  Captures whose
        reader is gone are ended, too.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.captures.keep)
            await self._end_hung()

    async def _end_hung(self) -> None:
        while True:
            await ticks.about(PROOF_INTERVAL)
            forwarder, heard = self.forwarder, self._heard
            with trio.move_on_after(HANG_TIME) as patience:
                await self._prove_alive(forwarder)
            if patience.cancelled_caught:
                await trio.sleep(LAST_LOOK)
                if forwarder is not self.forwarder or self._heard > heard:
                    continue
                log.error("forwarder hung, ending it pid=%d silent=%g", forwarder.pid, HANG_TIME)
                forwarder.disconnect()

    async def _prove_alive(self, forwarder: Forwarder) -> None:
        """Wait until *forwarder* has answered, or is gone; ask again if the link was too full for the answer."""
        answered = False
        with contextlib.suppress(ForwarderGoneError):
            while not answered:
                ping = PingPeer(OWN, next(self._serials))
                answered = await self._pings.ask(forwarder, ping, PROOF_INTERVAL) is not None

    async def _take_reports(
        self,
        forwarder: Forwarder,
        take: Take,
        count: Callable[[], int],
        awaits: Callable[[ServiceReport], bool],
    ) -> None:
        def is_awaited(report: Answer) -> bool:
            match report:
                case Counters():
                    return self._counters.awaits(report)
                case Ponged():
                    return self._pings.awaits(report)
                case Station():
                    return self._stations.awaits(report)
            return awaits(report)

        policing = Policing(is_awaited)
        while True:
            handshakes = 0
            for report in await forwarder.receive(REPORTS_AT_ONCE):
                if not policing.allows(report, count(), clock.now()):
                    log.error(
                        "forwarder sends too many reports pid=%d kind=%s", forwarder.pid, kind_of(report)
                    )
                    forwarder.disconnect()
                    raise ForwarderGoneError
                self._heard += report is not None
                match report:
                    case Counters():
                        self._counters.take(report)
                    case Ponged():
                        self._pings.take(report)
                    case Station():
                        self._stations.take(report)
                    case _:
                        handshakes += isinstance(report, Handshake)
                        await take(report)
            if handshakes:
                await forwarder.send(Handled(handshakes))
            await trio.lowlevel.checkpoint()
