"""How large the units to one peer may be: quickly smaller where they are lost, slowly larger where they are not.

A unit of k datagrams is lost k times as often as a datagram.  Reports tell what the receiver delivered, and what it
never did; no report at all counts as loss, because a device on the path may drop the new type.  If even small units do
not pay, plain messages are sent for a while, and then one more unit: if it is reported, others follow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.forwarding import state

if TYPE_CHECKING:
    from overlay.wire.control import Report

# Ours
WHOLE = 64  # segments; no super-packet has more that a unit carries
FIRST = 16  # segments, as long as nothing is known of the path; doubled with every report of no loss
SMALLEST = (
    16  # segments; fewer cost as much as messages, and all that a window has in flight may be lost with one
)
TOLERATED = 0.005  # of the units: what their loss costs a stream is then less than what they save
AIM = 0.0036  # of the units lost, for which a smaller size is chosen, and which a larger one must promise
DEEPEST = 4  # times smaller at once, at most: a few losses only show that there are too many
SAMPLE_UNITS, SAMPLE_TIME = (
    256,
    1.0,
)  # after so many units, or so many seconds and a quarter of them, start again
GROWTH_TIME = 1.0  # seconds after which the size is doubled, if few enough were lost meanwhile
SILENCE_TIME = 0.2  # seconds; or four round trips, if that is longer
LONGEST_ROUND_TRIP = 2.0  # seconds; a longer one is taken for a pause of the sender
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds of plain messages before units are tried again


class UnitSize(state.UnitSizeState):
    """The size of units under one keypair.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self, limit: int = FIRST) -> None:
        self.limit = limit
        self._is_new = limit < WHOLE  # nothing was lost so far
        self.round_trip = 0.0
        self.is_plain = False  # messages go, except for one unit on trial from _plain_until on
        self.waits_since = math.inf  # when the first unit was sent of which nothing was reported yet
        self._plain_until = -math.inf
        self._pause = FIRST_PAUSE
        self._silences = 0
        self._limit_before = 0  # the silence; 0 if it was not silence that led to plain messages
        self._next = 0  # counter of the unit after the last one sent
        self._from = 0  # counter of the first unit of the present size
        # Of one unit: its counter, and when it was sent
        self._has_probe = self._is_probe_late = False
        self._probe_counter, self._probe_at = 0, 0.0
        self._told = (0, 0)  # newest and units of the last report
        # Since when losses are counted, and what had been reported by then: to shrink by, and to grow by
        self._shrinks, self._shrinks_from = (0, 0), math.inf
        self._grows, self._grows_from = (0, 0), math.inf

    def successor(self) -> UnitSize:
        """Return the initial size for the next keypair: it knows what loss has taught, not what silence has."""
        after = UnitSize(self._limit_before or self.limit)
        after.round_trip, after._is_new = self.round_trip, self._is_new
        if not self._limit_before:
            after._pause, after.is_plain, after._plain_until = self._pause, self.is_plain, self._plain_until
        return after

    @property
    def is_known_to_pass(self) -> bool:
        """Whether units were reported, and are not given up."""
        return self._told[1] > 0 and not self.is_plain

    @property
    def patience(self) -> float:
        """How long a report may take, in seconds."""
        return max(SILENCE_TIME, 4 * self.round_trip)

    def allowed(self, now: float) -> int:
        """Return how many segments a unit may have; 0 for plain messages."""
        if not self.is_plain:
            return self.limit
        return 0 if now < self._plain_until or self.waits_since < math.inf else SMALLEST

    def sent(self, counter: int, now: float) -> None:
        """Note that the unit *counter* was sent."""
        self._next = counter + 1
        if self.waits_since == math.inf:
            self.waits_since = now
        if not self._has_probe or self._is_probe_late:
            self._probe_counter, self._probe_at = counter, now
            self._has_probe, self._is_probe_late = True, False

    def silence_due(self) -> float:
        """Return when silence() is due; math.inf if no report is awaited."""
        return self.waits_since + self.patience

    def silence(self, now: float) -> None:
        """Note that nothing was reported of what was sent."""
        self.waits_since, self._is_probe_late, self._is_new = math.inf, True, False
        if self.is_plain:
            self._go_plain(now)
            return
        self._silences += 1
        if self._silences == 1:
            self._limit_before = self.limit
        if self._silences == 1 and self.limit // 2 >= SMALLEST:
            self._begin(self.limit // 2)
        else:
            self._go_plain(now)

    def reported(self, report: Report, now: float) -> None:
        """Take a report.  One that claims more than was sent, or no more than before, changes nothing."""
        newest, units = report.newest, report.units
        if newest > self._next or units > newest or newest < self._told[0] or units <= self._told[1]:
            return
        self._told = newest, units
        if self._has_probe and newest > self._probe_counter:
            self._measure(now - self._probe_at)
            self._has_probe = False
        if self.is_plain:
            if newest > self._from:
                self._end_plain(SMALLEST)
            elif self._limit_before:  # the reports are only late
                self._end_plain(self._limit_before)
            return
        self.waits_since = math.inf
        self._silences = self._limit_before = 0
        self._is_new = self._is_new and newest == units and self.limit < WHOLE
        if self._is_new:
            self._begin(min(WHOLE, self.limit * 2))
            return
        if self._shrinks[0] < self._from:
            # All units of another size have been reported: those of the current one begin here.
            self._shrinks = self._grows = self._told
            self._shrinks_from = self._grows_from = now
            return
        if self._shrinks_from == math.inf:
            self._shrinks_from = self._grows_from = now
        self._shrink(now)
        if now >= self._grows_from + GROWTH_TIME:
            self._grow(now)

    def _shrink(self, now: float) -> None:
        seen, lost = self._since(self._shrinks)
        expected = seen * TOLERATED
        if lost > 1 + expected + 2 * math.sqrt(expected):  # more than chance
            limit = int(self.limit * AIM * seen / (lost - 1))
            limit = min(self.limit // 2, max(self.limit // DEEPEST, limit))
            if limit < SMALLEST:
                self._go_plain(now)
            else:
                self._begin(limit)
        elif seen >= SAMPLE_UNITS or (seen >= SAMPLE_UNITS // 4 and now >= self._shrinks_from + SAMPLE_TIME):
            self._shrinks, self._shrinks_from = self._told, now

    def _grow(self, now: float) -> None:
        seen, lost = self._since(self._grows)
        self._grows, self._grows_from = self._told, now
        if 2 * lost <= seen * AIM:
            self._pause = FIRST_PAUSE
            if self.limit < WHOLE:
                self._begin(min(WHOLE, self.limit * 2))

    def _since(self, base: tuple[int, int]) -> tuple[int, int]:
        """Return how many units were seen since *base* was reported, and how many of them were lost."""
        seen = self._told[0] - base[0]
        return seen, seen - (self._told[1] - base[1])

    def _measure(self, sample: float) -> None:
        if sample <= LONGEST_ROUND_TRIP:
            self.round_trip = sample if not self.round_trip else self.round_trip * 0.875 + sample * 0.125

    def _begin(self, limit: int) -> None:
        """Send units of another size from now on; those in flight say nothing about it."""
        self.limit, self._from = limit, self._next
        self._grows_from = math.inf

    def _go_plain(self, now: float) -> None:
        self.is_plain, self._plain_until = True, now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self.waits_since = math.inf
        self._begin(SMALLEST)

    def _end_plain(self, limit: int) -> None:
        self.is_plain, self.waits_since = False, math.inf
        self._silences = self._limit_before = 0
        self._begin(limit)
