"""A running capture: packets go from the sources to the output, until a limit, a signal, or one of them ends it.

The counts at the end are exact: a packet is captured if it is in the output, and missed if it arrived before the end
and is not there.
"""

from __future__ import annotations

import math
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from overlay import numbers
from overlay.cli.capture.outputs import ReaderGoneError
from overlay.cli.exits import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.capturing.entry import Entry
    from overlay.cli.capture.ending import Ending
    from overlay.cli.capture.outputs import Output
    from overlay.cli.capture.sources import Source

# Ours
TURN = 256  # packets of one source before the turn of the next
COUNT_AGAIN = 10.0  # seconds: the kernel counts to 2**32
DRAIN = 1.0  # seconds at the end for reading what arrived before it


@dataclass(frozen=True, slots=True)
class Limits:
    """How many packets to capture, and for how many seconds; None for no limit."""

    count: int | None = None
    duration: float | None = None


class Pausing(Protocol):
    """Says when to leave the processor to others."""

    def rest(self) -> float:
        """Return for how many seconds to pause reading."""


class Session:
    """Captures from *sources* to *output*, until *ending* asks it to end; *follow* is called before packets are
    read.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        output: Output,
        limits: Limits,
        ending: Ending,
        pausing: Pausing,
        follow: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources, self._output, self._limits = sources, output, limits
        self._ending, self._pausing, self._now = ending, pausing, now
        self._follow, self._taken = follow, 0
        self._is_wanted = True  # all that arrived before the end is still wanted
        self._cause: str | None = None  # why packets read at the end are not in the output
        self.failure: Failure | None = None  # of the output, at any time

    @property
    def captured(self) -> int:
        """Return how many packets are in the output."""
        return self._output.written

    def run(self) -> None:
        """Capture until a limit is reached, the end is asked for, or the reader is gone.  Raises Failure."""
        try:
            self._run()
        except KeyboardInterrupt:
            return
        except ReaderGoneError:
            self._taken, self._is_wanted = self.captured, False
        except Failure as error:
            self.failure = error
            raise

    def _run(self) -> None:
        waits = select.poll()
        by_descriptor = {source.fileno(): source for source in self._sources}
        for descriptor in by_descriptor:
            waits.register(descriptor, select.POLLIN)
        begun = counted = self._now()
        ends = math.inf if self._limits.duration is None else begun + self._limits.duration
        while (now := self._now()) < ends:
            self._output.flush()
            if now - counted > COUNT_AGAIN:
                counted = now
                for source in self._sources:
                    source.count()
            if (rest := self._pausing.rest()) > 0:
                with self._ending.waits():
                    time.sleep(min(rest, ends - now))
                continue
            with self._ending.waits():
                ready = waits.poll(None if math.isinf(ends) else max(0, ends - now) * 1000)
            self._follow()
            for descriptor, _ in ready:
                if self._is_full_after(by_descriptor[descriptor]):
                    self._is_wanted = False
                    return

    def _is_full_after(self, source: Source) -> bool:
        """Take a turn of *source*, and return whether that was the last packet."""
        for turn, entry in enumerate(source.read(), start=1):
            self._take(entry)
            if self._taken == self._limits.count:
                return True
            if turn == TURN:
                return False
        return False

    def _take(self, entry: Entry) -> None:
        self._taken += 1
        self._output.take(entry)

    def finish(self) -> str:
        """Capture what arrived before the end, write the counts to the output, and return a sentence with them.

        A failure of the output is in *failure*; a reader that has ended is the reason for missed packets.
        """
        for source in self._sources:
            source.stop()
        try:
            if self.failure is None and self._is_wanted:
                self._drain()
            # The kernel counts both directions together
            counts = {
                each.places[0]: (each.received, each.missed + self._left(each)) for each in self._sources
            }
            self._output.end(counts)
        except ReaderGoneError:
            self._cause = "the reader had ended"
        except Failure as error:
            self.failure = self.failure or error
        except KeyboardInterrupt:
            pass
        lost = self._taken - self.captured + sum(map(self._left, self._sources))
        overrun = sum(source.missed for source in self._sources)
        return f"{numbers.count(self.captured, 'packet')} captured{self._describe(lost, overrun)}"

    def _drain(self) -> None:
        """Read what had arrived at the time of stop(), for as long as time allows."""
        ends = self._now() + DRAIN
        for source in self._sources:
            waits = select.poll()
            waits.register(source.fileno(), select.POLLIN)
            while not source.is_drained and (left := ends - self._now()) > 0:
                for entry in source.read():
                    self._take(entry)
                    if self._taken == self._limits.count:
                        self._is_wanted = False
                        return
                    if source.is_drained or self._now() >= ends:
                        break
                if not source.is_drained:
                    with self._ending.waits():
                        waits.poll(left * 1000)

    def _left(self, source: Source) -> int:
        return source.unread if self._is_wanted else 0

    def _describe(self, lost: int, overrun: int) -> str:
        """Return the end of the sentence, on packets *lost* here and packets that *overrun* the kernel's buffer."""
        is_complete = not self._is_wanted or all(
            source.is_drained or source.unread for source in self._sources
        )
        if not lost + overrun:
            return ", none missed" if is_complete else ", none missed as far as the agent has reported"
        least = "" if is_complete else "at least "
        reasons = []
        if overrun or self._cause is None:
            reasons.append("they came faster than they were read")
        if lost and self._cause is not None:
            reasons.append(self._cause)
        why = "" if self.failure is not None else f": {', or '.join(reasons)}"
        return f", {least}{lost + overrun} missed{why}"
