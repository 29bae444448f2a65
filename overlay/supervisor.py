"""Keeps a forwarder alive: starts it, tells it all it must know, hears it, and puts another in its place when it ends.

A forwarder is trusted no more than the network: one that hangs, or reports without end, is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import TYPE_CHECKING

import trio

from overlay.counters import CounterQuestions
from overlay.errors import HostError
from overlay.forwarder import ForwarderGoneError, OtherReleaseError
from overlay.host import clock
from overlay.link import OWN, Counters, Handled, Handshake, PingPeer, Ponged
from overlay.pings import PingQuestions
from overlay.policing import Policing, kind_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from overlay.counters import Counted
    from overlay.forwarder import Forwarder
    from overlay.link import Command, Report

# Ours
REPORTS_AT_ONCE = 32  # reports taken before other tasks have their turn
# Seconds in which a new forwarder takes nothing and does not get ready; it takes 0.3 in all
START_TIME = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before a forwarder that died is started anew
STEADY_TIME = 60.0  # seconds that a forwarder must live for the pause to start over
PROOF_INTERVAL = 10.0  # seconds between two questions to the forwarder whether it still answers
HANG_TIME = 30.0  # seconds without an answer, after which it is ended

log = logging.getLogger("overlay")


class Supervisor:
    """The forwarder of a node, whichever it is now.

    What an agent does around it comes as functions: *introduce* yields what a new forwarder must be told, each with its
    descriptors; *take* takes a report that is no answer, None for what is none; *peers* are the numbers of the peers.
    """

    def __init__(
        self,
        start: Callable[[], Forwarder],
        *,
        introduce: Callable[[], Iterable[tuple[Command, Sequence[int]]]],
        take: Callable[[Report | None], Awaitable[None]],
        note: Callable[[str], None],
        peers: Callable[[], Collection[int]],
    ) -> None:
        """Start the first forwarder, whose interpreter takes a while.  Raises HostError."""
        self.forwarder = start()
        self._start, self._introduce, self._take, self._note, self._peers = (
            start,
            introduce,
            take,
            note,
            peers,
        )
        self._serials = itertools.count(1)
        self._counters, self._pings = CounterQuestions(), PingQuestions()

    @property
    def pings_waiting(self) -> int:
        """How many in-band pings wait for their answer."""
        return len(self._pings)

    async def count(self) -> Counted:
        """Ask for the counters; return what it told in time if it is busy or gone."""
        return await self._counters.ask(self.forwarder, next(self._serials), self._peers())

    async def ping(self, peer: int, timeout: float) -> Ponged | None:
        """Ask for an in-band ping of *peer*; return None if it was not answered in *timeout* seconds.

        Raises ForwarderGoneError.
        """
        return await self._pings.ask(self.forwarder, PingPeer(peer, next(self._serials)), timeout)

    async def tell(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        """Tell the forwarder; one that is gone is keep()'s matter, and its successor is told everything."""
        with contextlib.suppress(ForwarderGoneError):
            await self.forwarder.send(command, descriptors)

    async def bring_up(self, nursery: trio.Nursery) -> None:
        """Tell a new forwarder everything it must know, and wait until it is ready.  Raises HostError."""
        forwarder = self.forwarder
        nursery.start_soon(forwarder.hear)
        notes: list[str] | None = None
        try:
            with trio.move_on_after(START_TIME) as patience:
                for command, descriptors in self._introduce():
                    await forwarder.send(command, descriptors)
                    patience.deadline = trio.current_time() + START_TIME
                notes = await forwarder.get_ready()
        except OtherReleaseError as error:
            await forwarder.stop()
            raise HostError(str(error)) from None
        except ForwarderGoneError:
            raise HostError(f"the forwarder did not start: {await forwarder.stop()}") from None
        if notes is None:
            await forwarder.stop()
            raise HostError(f"the forwarder took nothing and was not ready for {START_TIME:g} s")
        for note in notes:
            self._note(f"the forwarder keeps privileges: {note}")

    async def restart(self, nursery: trio.Nursery) -> None:
        """Start another forwarder in the place of one that ended.  Raises HostError."""
        self.forwarder = self._start()
        await self.bring_up(nursery)

    async def keep(self, restart: Callable[[], Awaitable[None]]) -> None:
        """Take the forwarder's reports; when it ends, have *restart* put another in its place, which raises HostError."""
        pause = FIRST_PAUSE
        while True:
            began = clock.now()
            try:
                await self._take_reports(self.forwarder)
            except ForwarderGoneError:
                log.error("forwarder ended unexpectedly, starting another: %s", await self.forwarder.stop())  # noqa: TRY400  the process's end, not ours, is the news
            self._counters.end()
            if clock.now() - began > STEADY_TIME:
                pause = FIRST_PAUSE
            while True:
                await trio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                try:
                    await restart()
                    break
                except HostError as error:
                    # Not the end of the agent: as long as it lives, the overlay's packets do not leave unencrypted.
                    log.error("forwarder not restarted, trying again in %g s: %s", pause, error)  # noqa: TRY400  its text is the news

    async def watch(self) -> None:
        """End a forwarder that answers nothing any more, though its process lives; keep() starts another."""
        while True:
            await trio.sleep(PROOF_INTERVAL)
            forwarder = self.forwarder
            with trio.move_on_after(HANG_TIME) as patience:
                await self._prove_alive(forwarder)
            if patience.cancelled_caught and forwarder is self.forwarder:
                log.error("forwarder hung, ending it pid=%d silent=%g", forwarder.pid, HANG_TIME)
                forwarder.disconnect()

    async def _prove_alive(self, forwarder: Forwarder) -> None:
        """Return when *forwarder* has answered, or is gone.  An answer that its link does not take is asked for again."""
        answered = False
        with contextlib.suppress(ForwarderGoneError):
            while not answered:
                ping = PingPeer(OWN, next(self._serials))
                answered = await self._pings.ask(forwarder, ping, PROOF_INTERVAL) is not None

    async def _take_reports(self, forwarder: Forwarder) -> None:
        policing = Policing(self._is_awaited)
        while True:
            handshakes = 0
            for report in await forwarder.receive(REPORTS_AT_ONCE):
                if not policing.allows(report, len(self._peers()), clock.now()):
                    log.error("forwarder reports without end pid=%d kind=%s", forwarder.pid, kind_of(report))
                    forwarder.disconnect()
                    raise ForwarderGoneError
                match report:
                    case Counters():
                        self._counters.take(report)
                    case Ponged():
                        self._pings.take(report)
                    case _:
                        handshakes += isinstance(report, Handshake)
                        await self._take(report)
            if handshakes:
                await forwarder.send(Handled(handshakes))
            await trio.lowlevel.checkpoint()

    def _is_awaited(self, report: Counters | Ponged) -> bool:
        return self._counters.awaits(report) if isinstance(report, Counters) else self._pings.awaits(report)
