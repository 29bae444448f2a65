"""A capture while it runs: what the sources give goes to the output, until a limit, a signal, or one of them ends it."""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay import numbers
from overlay.cli.capture.outputs import ReaderGoneError
from overlay.cli.exits import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.cli.capture.outputs import Output
    from overlay.cli.capture.sources import Source

# Ours
TURN = 256  # packets of one source before others have their turn
REST = 1.0  # seconds at most for what had come before the end, and was not read yet


@dataclass(frozen=True, slots=True)
class Limits:
    """How many packets are captured, and for how many seconds; None for no limit."""

    count: int | None = None
    duration: float | None = None


class Session:
    """Captures from *sources* to *output*."""

    def __init__(
        self,
        sources: Sequence[Source],
        output: Output,
        limits: Limits,
        now: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sources, self._output, self._limits, self._now = sources, output, limits, now
        self._wall_ns = wall_ns
        self.captured = 0

    def run(self) -> None:
        """Capture until a limit is reached or nobody reads.  Raises Failure, and KeyboardInterrupt at a signal.

        Whatever a signal interrupts, a packet is written whole or not at all: it is smaller than the output's buffer.
        """
        waits = select.poll()
        by_descriptor = {source.fileno(): source for source in self._sources}
        for descriptor in by_descriptor:
            waits.register(descriptor, select.POLLIN)
        ends = None if self._limits.duration is None else self._now() + self._limits.duration
        try:
            while ends is None or self._now() < ends:
                self._output.flush()
                ready = waits.poll(None if ends is None else max(0, ends - self._now()) * 1000)
                for descriptor, _ in ready:
                    if self._is_full_after(by_descriptor[descriptor]):
                        return
        except ReaderGoneError:
            return

    def _is_full_after(self, source: Source, ended_ns: int | None = None) -> bool:
        """Take a turn of *source*, and return whether that was the last packet, or the last until *ended_ns*."""
        for turn, entry in enumerate(source.read(), start=1):
            if ended_ns is not None and entry.wall_ns > ended_ns:
                return True
            self._output.take(entry)
            self.captured += 1
            if self.captured == self._limits.count:
                return True
            if turn == TURN:
                return False
        return False

    def take_rest(self) -> None:
        """Take what had come by now and was not read yet: a busy machine lets it wait.  Raises as run()."""
        ended_ns, deadline = self._wall_ns(), self._now() + REST
        with contextlib.suppress(ReaderGoneError):
            for source in self._sources:
                while (
                    self.captured != self._limits.count
                    and self._now() < deadline
                    and select.select([source], [], [], 0)[0]
                    and not self._is_full_after(source, ended_ns)
                ):
                    pass
            self._output.flush()

    def finish(self) -> str:
        """Have the output tell what was counted, and return a sentence of it; how that fails was told before."""
        missed = 0
        for source in self._sources:
            source.count()
            missed += source.missed
        with contextlib.suppress(ReaderGoneError, Failure):
            # The kernel counts both directions together
            self._output.end({each.places[0]: (each.received, each.missed) for each in self._sources})
        lost = f", {missed} missed: they came faster than they were read" if missed else ", none missed"
        return f"{numbers.count(self.captured, 'packet')} captured{lost}"
