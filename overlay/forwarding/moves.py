"""The consequences of a change of a peer's endpoint, bounded however often it changes.

The endpoint itself follows every authentic datagram, as in the protocol.  Anything else would cost too much for each: a
peer may appear at two places in turn, because its network has two paths, its key is on two hosts, or it is hostile. So
the agent is told where the peer is at most once in MOVES_INTERVAL, the latest place with the number of moves, and the
search for the path's MTU starts again at once for the first move, and else when the peer has stayed for SETTLED_TIME.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr

# Ours
MOVES_INTERVAL = 1.0  # seconds between two reports of where one peer is
SETTLED_TIME = 5.0  # seconds in one place, after which the peer has settled there
UNDER_WAY = 0.5  # seconds in which datagrams may still arrive from a place that the agent has replaced


@dataclass(frozen=True, slots=True)
class Turn:
    """What must be done now, and when to ask again."""

    count: int  # moves that the agent should be told of now; 0 for none
    before: Sockaddr | None  # where the peer was before the last of them
    is_path_new: bool  # the path is to be searched again
    due: float  # seconds; math.inf for not before the next move


class Moves:
    """The moves of one peer.  Times are seconds of CLOCK_BOOTTIME."""

    __slots__ = ("_before", "_count", "_left", "_left_at", "_moved_at", "_path_at", "_planned", "_told_at")

    def __init__(self) -> None:
        self._count = 0  # not reported yet
        self._before: Sockaddr | None = None
        self._told_at = self._moved_at = -math.inf
        self._path_at = math.inf  # when the search for the path's MTU is to start again
        self._planned = math.inf  # when turn() will be called
        self._left: Sockaddr | None = None  # the place that the agent has replaced
        self._left_at = -math.inf

    def moved(self, before: Sockaddr | None, now: float, *, is_known: bool = False) -> bool:
        """Note a move from *before*, None for nowhere, and return whether turn() is to be called now.

        If the move *is_known* to the agent, it is not told of it.
        """
        has_settled = before is None or now >= self._moved_at + SETTLED_TIME
        self._path_at = now if has_settled else now + SETTLED_TIME
        if before is not None:
            self._moved_at = now
        if not is_known:
            self._count += 1
            self._before = before
        return self._due() < self._planned

    def leave(self, place: Sockaddr | None, now: float) -> None:
        """Note that the agent has the peer at another place than *place*, None for nowhere, from now on."""
        self._left, self._left_at = place, now

    def is_late(self, source: Sockaddr, now: float) -> bool:
        """Return whether a datagram from *source* was under way when the agent moved the peer,
        so that it must not move the peer back.
        """
        return source == self._left and now < self._left_at + UNDER_WAY

    def turn(self, now: float) -> Turn:
        """Return what is due, and take it as done."""
        count = 0
        if self._count and now >= self._told_at + MOVES_INTERVAL:
            count, self._count = self._count, 0
            self._told_at = now
        is_path_new = now >= self._path_at
        if is_path_new:
            self._path_at = math.inf
        self._planned = self._due()
        return Turn(count, self._before, is_path_new, self._planned)

    def not_told(self, turn: Turn) -> float:
        """Take back that the agent was told about *turn*, and return when to try again."""
        self._count += turn.count
        self._planned = self._due()
        return self._planned

    def _due(self) -> float:
        return min(self._path_at, self._told_at + MOVES_INTERVAL if self._count else math.inf)
