"""Where a peer was heard in the last minute: for people, and so that the host is not asked twice about one address."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.wire.addresses import format_sockaddr

if TYPE_CHECKING:
    from overlay.wire.addresses import Sockaddr

# Ours
MINUTE = 60.0  # seconds
RESTLESS = 10  # moves in a minute that are worth a note: a roaming host does not move so often
PLACES = 8  # remembered, of the addresses that the host was asked about
QUESTIONS = 16  # to the host about one peer in a burst; then one a second
INTERVAL = 1.0  # seconds; closer moves are counted together


class Whereabouts:
    """The moves of one peer.  Times are seconds of CLOCK_BOOTTIME."""

    __slots__ = ("_asked", "_called", "_last", "_moves", "_permits", "_permitted_at")

    def __init__(self) -> None:
        self._moves: deque[tuple[float, int]] | None = None  # (when, how many), at least INTERVAL apart
        self._last: tuple[Sockaddr, Sockaddr] | None = None
        self._asked: dict[Sockaddr, float] = {}
        self._called: dict[Sockaddr, None] = {}  # since it was last reached
        self._permits, self._permitted_at = float(QUESTIONS), 0.0

    def moved(self, before: Sockaddr | None, endpoint: Sockaddr, count: int, now: float) -> None:
        """Note *count* moves, the last one from *before* to *endpoint*."""
        if self._moves is None:
            self._moves = deque()
        if self._moves and now - self._moves[-1][0] < INTERVAL:
            began, before_that = self._moves.pop()
            self._moves.append((began, before_that + count))
        else:
            self._moves.append((now, count))
        self._forget_old(now)
        if before is not None:
            self._last = before, endpoint

    def trouble(self, name: str, now: float) -> Finding | None:
        """Return a finding on a peer, called *name*, that is heard from different addresses in turn; None if it is
        not.
        """
        self._forget_old(now)
        count = sum(count for _, count in self._moves or ())
        if count < RESTLESS or self._last is None:
            return None
        one, other = map(format_sockaddr, self._last)
        return Finding(
            "two_places",
            f"{name} is heard from {one} and {other} in turn, {count} times in a minute",
            "see whether two hosts use its key, or its network has two uplinks",
            name,
        )

    def may_ask(self, now: float) -> bool:
        """Return whether the host may be asked about an address of the peer now, and count it as asked."""
        passed, self._permitted_at = now - self._permitted_at, now
        self._permits = min(QUESTIONS, self._permits + passed)
        if self._permits < 1:
            return False
        self._permits -= 1
        return True

    def is_settled(self, endpoint: Sockaddr, now: float) -> bool:
        """Return whether *endpoint* was found to change nothing on this host less than a minute ago."""
        return now - self._asked.get(endpoint, -MINUTE) < MINUTE

    def settle(self, endpoint: Sockaddr, now: float) -> None:
        """Note that *endpoint* changes nothing on this host."""
        self._asked.pop(endpoint, None)
        if len(self._asked) >= PLACES:
            del self._asked[next(iter(self._asked))]
        self._asked[endpoint] = now

    def call(self, endpoint: Sockaddr) -> bool:
        """Note that the peer will be called at *endpoint*, and return whether that is new since it was last reached."""
        is_new = endpoint not in self._called
        if is_new and len(self._called) >= PLACES:
            del self._called[next(iter(self._called))]
        self._called[endpoint] = None
        return is_new

    def reached(self) -> None:
        """Note that the peer was reached."""
        self._called.clear()

    def _forget_old(self, now: float) -> None:
        while self._moves and now - self._moves[0][0] >= MINUTE:
            self._moves.popleft()
