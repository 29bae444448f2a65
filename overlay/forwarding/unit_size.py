"""How large the units to one peer may be: quickly smaller where they are lost, slowly larger where they are not.

A unit of k datagrams is lost k times as often as a datagram.  What the receiver delivered, and what it never did,
comes back in reports; no report at all counts as loss, for a box on the way may drop the new type.  Where even small
units do not pay, plain messages go for a while, and then one unit more: if it is reported, others follow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.wire.control import Report

# Ours
WHOLE = 64  # segments; no super-packet has more that a unit carries
SMALLEST = 16  # segments; smaller units cost more than the messages they replace
TOLERATED = 0.01  # of the units: what their loss costs is then less than what they save
AIM = 0.005  # of the units lost, that a smaller size is chosen for
SAMPLE_UNITS = 32  # units in a judgement, or what came in SAMPLE_TIME
SAMPLE_TIME = 0.25  # seconds
CLEAN_TIME = 1.0  # seconds without a loss after which the size is doubled
SILENCE_TIME = 0.2  # seconds; or four round trips, if that is longer
LONGEST_ROUND_TRIP = 2.0  # seconds; a longer one is taken for a sender that paused
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds of plain messages before units are tried again


class UnitSize:
    """The size of units under one keypair.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self.limit = WHOLE
        self.round_trip = 0.0
        self.is_plain = False  # messages go, but for one unit on trial from _plain_until on
        self.waits_since = math.inf  # when the first unit was sent of which nothing was reported yet
        self._plain_until = -math.inf
        self._pause = FIRST_PAUSE
        self._silences = 0
        self._limit_before = 0  # the silence; 0 if it was not silence that led to plain messages
        self._next = 0  # counter of the unit after the last one sent
        self._from = 0  # counter of the first unit of the present size
        self._probe: tuple[int, float] | None = None  # a unit's counter and when it was sent
        self._is_probe_late = False
        self._told = self._base = (
            0,
            0,
        )  # newest and units of the last report, and of that the sample began with
        self._sample_from = -math.inf
        self._clean_since = -math.inf

    def successor(self) -> UnitSize:
        """Return the size for the next keypair to begin with: it knows what loss has taught, not what silence has."""
        after = UnitSize()
        after.round_trip = self.round_trip
        if not self._silences and not self._limit_before:
            after.limit, after._pause = self.limit, self._pause
            after.is_plain, after._plain_until = self.is_plain, self._plain_until
        return after

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
        if self._probe is None or self._is_probe_late:
            self._probe, self._is_probe_late = (counter, now), False

    def silence_due(self) -> float:
        """Return when silence() is due; math.inf if nothing waits for a report."""
        return self.waits_since + max(SILENCE_TIME, 4 * self.round_trip)

    def silence(self, now: float) -> bool:
        """Take note that nothing was reported of what was sent; return whether units are given up for it just now."""
        self.waits_since, self._is_probe_late = math.inf, True
        if self.is_plain:
            self._go_plain(now)
            return False
        self._silences += 1
        if self._silences == 1:
            self._limit_before = self.limit
        if self._silences == 1 and self.limit // 2 >= SMALLEST:
            self._begin(self.limit // 2, now)
        else:
            self._go_plain(now)
        return self.is_plain

    def reported(self, report: Report, now: float) -> None:
        """Take a report.  One that claims more than was sent, or no more than before, changes nothing."""
        newest, units = report.newest, report.units
        if newest > self._next or units > newest or newest < self._told[0] or units <= self._told[1]:
            return
        self._told = newest, units
        if self._probe is not None and newest > self._probe[0]:
            self._measure(now - self._probe[1])
            self._probe = None
        if self.is_plain:
            if newest > self._from:
                self._end_plain(SMALLEST, now)
            elif self._limit_before:  # the reports are only late
                self._end_plain(self._limit_before, now)
            return
        self.waits_since = math.inf
        self._silences = self._limit_before = 0
        if self._base[0] < self._from:
            # The units of another size are behind us now: this is where a sample of the present one begins.
            self._base, self._sample_from = self._told, now
            return
        if self._sample_from == -math.inf:
            self._sample_from = self._clean_since = now
        seen = newest - self._base[0]
        if not seen or (seen < SAMPLE_UNITS and now - self._sample_from < SAMPLE_TIME):
            return
        lost = (seen - (units - self._base[1])) / seen
        self._base, self._sample_from = self._told, now
        self._judge(lost, now)

    def _judge(self, lost: float, now: float) -> None:
        if lost > TOLERATED:
            limit = min(self.limit // 2, int(self.limit * AIM / lost))
            if limit < SMALLEST:
                self._go_plain(now)
            else:
                self._begin(limit, now)
        elif lost > 0:
            self._clean_since = now
        elif now - self._clean_since >= CLEAN_TIME:
            self._clean_since = now
            self._pause = FIRST_PAUSE
            if self.limit < WHOLE:
                self._begin(min(WHOLE, self.limit * 2), now)

    def _measure(self, sample: float) -> None:
        if sample <= LONGEST_ROUND_TRIP:
            self.round_trip = sample if not self.round_trip else self.round_trip * 0.875 + sample * 0.125

    def _begin(self, limit: int, now: float) -> None:
        """Send units of another size from now on; those under way tell nothing of it."""
        self.limit, self._from, self._clean_since = limit, self._next, now

    def _go_plain(self, now: float) -> None:
        self.is_plain, self._plain_until = True, now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self.waits_since = math.inf
        self._begin(SMALLEST, now)

    def _end_plain(self, limit: int, now: float) -> None:
        self.is_plain, self.waits_since = False, math.inf
        self._silences = self._limit_before = 0
        self._begin(limit, now)
