"""Peers that are somewhere else than the plan of the host was made for: whether they ask for another plan, and when.

A peer that moves to a place that our routes lead to, or that has a smaller MTU, requires a new plan.  To find out is a
question to the kernel, and a plan costs more.  A peer may move as often as it likes, and a forwarder that was taken
over may say so of every peer without end: so a peer is asked about some times and then once a second, all of them in
pieces, and of plans that follow one another each comes later after the one before.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.roster import Remote
    from overlay.wire.addresses import Sockaddr

# Ours
QUESTIONS_AT_ONCE = 200  # to the kernel in one turn, some 10 ms; there is a turn each second
REPLAN_PAUSE = 0.1  # seconds in which peers that ask for other routes are: one plan of 10,000 takes that long
LONGEST_PAUSE = 5.0  # seconds before one of many plans in a row
QUIET_TIME = 30.0  # seconds without a plan, after which the next comes as soon as the first


class Relocations:
    """The peers to be asked about.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(
        self, is_affected_by: Callable[[str, Sockaddr], bool], want_plan: Callable[[], None]
    ) -> None:
        """*is_affected_by* asks the kernel about one peer at one place; *want_plan* is called when a plan is due."""
        self._is_affected_by, self._want_plan = is_affected_by, want_plan
        self._put_off: dict[int, Remote] = {}
        self._meanwhile: dict[int, Remote] = {}  # that moved while a plan was computed
        self._is_due = False
        self._pause, self._planned_at = REPLAN_PAUSE, 0.0

    def moved(self, remote: Remote, now: float, *, is_planning: bool) -> None:
        """Take note that *remote* has another endpoint; a plan that *is_planning* does not know it yet."""
        if is_planning:
            self._meanwhile[remote.number] = remote
        self._look(remote, now)

    def turn(self, now: float) -> None:
        """Ask about peers that were put off."""
        for number in list(islice(self._put_off, QUESTIONS_AT_ONCE)):
            self._look(self._put_off.pop(number), now)

    def begin(self) -> None:
        """Take note that a plan is being computed with the endpoints of this moment."""
        self._meanwhile.clear()

    def end(self) -> None:
        """Ask about the peers that have moved since begin(): the plan that is in force now was made without that."""
        moved, self._meanwhile = self._meanwhile, {}
        for count, remote in enumerate(moved.values()):
            if count >= QUESTIONS_AT_ONCE:
                self._put_off[remote.number] = remote
            elif remote.endpoint is not None and self._is_affected_by(remote.peer.name, remote.endpoint):
                self._want()
                break

    def pause(self, now: float) -> float:
        """Return how many seconds to wait before the plan that is due is made."""
        if now - self._planned_at >= QUIET_TIME:
            self._pause = REPLAN_PAUSE
        return max(REPLAN_PAUSE, self._planned_at + self._pause - now)

    def plan(self, now: float) -> None:
        """Take note that the plan that was due is made now."""
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
