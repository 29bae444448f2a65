"""Peers that have moved since the plan of the host was made: whether they need another plan, and when to make it.

A peer that moves to an address that our routes lead to, or with a smaller path MTU, requires a new plan.  Finding that
out takes a question to the kernel, and a plan costs more.  A peer may move as often as it likes, and a forwarder that
was taken over may report moves of every peer without end.  So the kernel is asked about one peer a few times at once
and then once a second, about many peers in parts, and successive plans are delayed more and more.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.roster import Remote
    from overlay.wire.addresses import Sockaddr

# Ours
QUESTIONS_AT_ONCE = 200  # to the kernel in one turn, about 10 ms; there is one turn a second
REPLAN_PAUSE = 0.1  # seconds in which moved peers are gathered: a plan for 10,000 takes that long
LONGEST_PAUSE = 5.0  # seconds before one of many plans in a row
QUIET_TIME = 30.0  # seconds without a plan, after which the next is as early as the first


class Relocations:
    """The peers to ask about.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self, is_affected_by: Callable[[str, Sockaddr], bool], want_plan: Callable[[], None]
    ) -> None:
        """*is_affected_by* asks the kernel about one peer at one address; *want_plan* is called when a plan is due."""
        self._is_affected_by, self._want_plan = is_affected_by, want_plan
        self._put_off: dict[int, Remote] = {}
        self._meanwhile: dict[int, Remote] = {}  # peers that moved while a plan was computed
        self._is_due = False
        self._pause, self._planned_at = REPLAN_PAUSE, 0.0

    def moved(self, remote: Remote, now: float, *, is_planning: bool) -> None:
        """Record that *remote* has another endpoint; with *is_planning*, the plan being computed does not include it
        yet.
        """
        if is_planning:
            self._meanwhile[remote.number] = remote
        self._look(remote, now)

    def turn(self, now: float) -> None:
        """Ask about peers that were postponed."""
        for number in list(islice(self._put_off, QUESTIONS_AT_ONCE)):
            self._look(self._put_off.pop(number), now)

    def begin(self) -> None:
        """Record that a plan is being computed with the endpoints of this moment."""
        self._meanwhile.clear()

    def end(self) -> None:
        """Ask about the peers that have moved since begin(): the new plan was made without their moves."""
        moved, self._meanwhile = self._meanwhile, {}
        for count, remote in enumerate(moved.values()):
            if count >= QUESTIONS_AT_ONCE:
                self._put_off[remote.number] = remote
            elif remote.endpoint is not None and self._is_affected_by(remote.peer.name, remote.endpoint):
                self._want()
                break

    def pause(self, now: float) -> float:
        """Return how many seconds to wait before making the plan that is due."""
        if now - self._planned_at >= QUIET_TIME:
            self._pause = REPLAN_PAUSE
        return max(REPLAN_PAUSE, self._planned_at + self._pause - now)

    def plan(self, now: float) -> None:
        """Record that the plan that was due is being made."""
        self._is_due, self._planned_at = False, now
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _look(self, remote: Remote, now: float) -> None:
        endpoint, whereabouts = remote.endpoint, remote.whereabouts
        if self._is_due or endpoint is None or whereabouts.is_settled(endpoint, now):
            return
        if not whereabouts.may_ask(now):
            self._put_off[remote.number] = remote
        elif self._is_affected_by(remote.peer.name, endpoint):
            self._want()
        else:
            whereabouts.settle(endpoint, now)

    def _want(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._want_plan()
