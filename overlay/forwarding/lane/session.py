"""The lanes of one session: their keypairs, and which of them carry packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from overlay.forwarding.lane.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class OfLane(Protocol):
    """A keypair of a lane."""

    lane: int


K = TypeVar("K", bound=OfLane)


class SessionLanes(Generic[K]):
    """The lanes of one session in addition to its first."""

    __slots__ = ("_make", "_packets", "are_agreed", "keypairs", "trials")

    def __init__(self, make: Callable[[int], K]) -> None:
        """*make* makes the keypair of a lane."""
        self._make = make
        self._packets = -1  # that were for the peer at the last turn
        self.are_agreed = (
            False  # the peer has said how many it has: a lane that is gone never comes back, as its counters
        )
        self.keypairs: list[K] = []
        self.trials: list[Trial] = []

    @property
    def count(self) -> int:
        """How many the session has, the first included."""
        return 1 + len(self.keypairs)

    def grow(self, count: int, now: float, open_before: Sequence[bool] = ()) -> list[K]:
        """Add lanes until there are at least *count*, and return the keypairs that are new."""
        made = [self._make(lane) for lane in range(self.count, count)]
        self.trials += [Trial(now, is_open=any(open_before[each.lane : each.lane + 1])) for each in made]
        self.keypairs += made
        return made

    def shrink(self, count: int) -> list[K]:
        """Reduce the lanes to at most *count*, and return the keypairs that are to be forgotten."""
        gone = self.keypairs[count - 1 :]
        del self.keypairs[count - 1 :], self.trials[count - 1 :]
        return gone

    def are_open(self) -> list[bool]:
        """Return which lanes, the first included, carry packets."""
        return [True, *(trial.is_open for trial in self.trials)]

    def sending(self, own: int) -> list[K | None]:
        """Return by which keypair each of *own* lanes sends; None for that of the session."""
        chosen: list[K | None] = []
        for number in range(own):
            lane = number & self.count - 1
            chosen.append(self.keypairs[lane - 1] if lane and self.trials[lane - 1].is_open else None)
        return chosen

    def is_flowing(self, packets: int) -> bool:
        """Return whether packets went since this was asked last; *packets* is how many there were so far."""
        has_moved, self._packets = packets != self._packets, packets
        return has_moved
