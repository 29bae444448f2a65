"""What concerns every peer is done between packets, a step at a time.

With ten thousand peers, a send to each or a row of counters for each takes a tenth of a second, in which no packet
would be forwarded.  Here such a job is something to do for each of many items; doing it for one is a step, of at most
some dozen microseconds.  The loop runs steps until its slice of time is over, and then packets have their turn.

Jobs of one kind are done one after another, in the order in which they were added; the kinds take turns, so that a
node that floods frames all the time answers questions as well.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


def always() -> bool:
    """Return True: there is time for everything, or nothing is in the way."""
    return True


@dataclass(slots=True)
class _Job:
    items: Iterator[Any]
    do: Callable[[Any, float], None]
    may_go: Callable[[], bool]
    has_begun: bool = False


class Workqueue:
    """Jobs that have begun or wait, by kind.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[_Job]] = {}  # of each kind that has any; first the kind whose turn it is

    def add(
        self,
        kind: str,
        items: Iterable[T],
        do: Callable[[T, float], None],
        may_go: Callable[[], bool] = always,
    ) -> None:
        """Call *do* for each of *items*, with the time as it is then, after the jobs of *kind* that were added before.

        *items* must not change meanwhile.  As long as *may_go* says no, the job and those behind it wait.
        """
        self._jobs.setdefault(kind, deque()).append(_Job(iter(items), do, may_go))

    def add_once(self, kind: str, items: Iterable[T], do: Callable[[T, float], None]) -> None:
        """Add a job like all others of its *kind*, in place of one that waits and has not begun.

        One that has begun may have passed over an item that is concerned again, so another follows it.
        """
        waiting = self._jobs.get(kind)
        if waiting and not waiting[-1].has_begun:
            waiting.pop()
        self.add(kind, items, do)

    def has(self, kind: str) -> bool:
        """Return whether a job of *kind* is not done yet."""
        return kind in self._jobs

    def is_ready(self) -> bool:
        """Return whether run() would do anything."""
        return next(self._ready(), None) is not None

    def run(self, now: float, has_time: Callable[[], bool] = always) -> None:
        """Do steps, at least one, until nothing can be done or *has_time*, asked after each, says no."""
        while (kind := next(self._ready(), None)) is not None:
            self._step(kind, now)
            if not has_time():
                return

    def _ready(self) -> Iterator[str]:
        """Yield the kinds of which something can be done, first the one whose turn it is."""
        return (kind for kind, waiting in self._jobs.items() if waiting[0].may_go())

    def _step(self, kind: str, now: float) -> None:
        waiting = self._jobs[kind]
        job = waiting[0]
        for item in job.items:
            job.has_begun = True
            job.do(item, now)
            break
        else:
            waiting.popleft()
        del self._jobs[kind]
        if waiting:
            self._jobs[kind] = waiting  # behind the other kinds
