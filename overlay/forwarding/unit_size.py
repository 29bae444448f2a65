"""How large the units to one peer may be: quickly smaller where they are lost, slowly larger where they are not.

A unit of k datagrams is lost k times as often as a datagram.  What the receiver delivered, and what it never did,
comes back in reports; no report at all counts as loss, for a box on the way may drop the new type.  Where even small
units do not pay, plain messages go for a while, and then one attempt more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.wire.control import Report

# Ours
WHOLE = 64  # segments; no super-packet has more that a unit carries
SMALLEST = 4  # segments; below that a unit saves nothing
TOLERATED = 0.03  # of the units: what their loss costs is then less than what they save
AIM = 0.015  # of the units lost, that a smaller size is chosen for
SAMPLE_UNITS = 32  # units in a judgement, or what came in SAMPLE_TIME
SAMPLE_TIME = 0.25  # seconds
CLEAN_TIME = 1.0  # seconds without a loss after which the size is doubled
SILENCE_TIME = 0.2  # seconds; or four round trips, if that is longer
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds of plain messages before units are tried again


class UnitSize:
    """The size of units under one keypair.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self.limit = WHOLE
        self.round_trip = 0.0
        self._plain_until = -math.inf
        self._pause = FIRST_PAUSE
        self._silences = 0
        self._unreported_since = math.inf
        self._probe: tuple[int, float] | None = None  # a unit's counter and when it was sent
        self._base = (0, 0)  # newest, units of the report that the sample began with
        self._sample_from = -math.inf
        self._clean_since = -math.inf

    def allowed(self, now: float) -> int:
        """Return how many segments a unit may have; 0 for plain messages."""
        return 0 if now < self._plain_until else self.limit

    def sent(self, counter: int, now: float) -> None:
        """Note that the unit *counter* was sent."""
        if self._unreported_since == math.inf:
            self._unreported_since = now
        if self._probe is None:
            self._probe = counter, now

    def silence_due(self) -> float:
        """Return when silence() is due; math.inf if nothing waits for a report."""
        return self._unreported_since + max(SILENCE_TIME, 4 * self.round_trip)

    def silence(self, now: float) -> None:
        """Take note that nothing was reported of what was sent."""
        self._unreported_since, self._probe = math.inf, None
        self._silences += 1
        if self._silences >= 2:
            self._go_plain(now)
        else:
            self._shrink(self.limit // 2, now)

    def reported(self, report: Report, now: float) -> None:
        """Take a report.  One that claims more than was sent, or less than before, changes nothing that matters."""
        newest, units = report.newest, report.units
        if newest < self._base[0] or units < self._base[1] or units > newest:
            return
        self._unreported_since = math.inf
        self._silences = 0
        if self._probe is not None and newest > self._probe[0]:
            sample = now - self._probe[1]
            self.round_trip = sample if not self.round_trip else self.round_trip * 0.875 + sample * 0.125
            self._probe = None
        seen = newest - self._base[0]
        if self._sample_from == -math.inf:
            self._sample_from = self._clean_since = now
        if not seen or (seen < SAMPLE_UNITS and now - self._sample_from < SAMPLE_TIME):
            return
        lost = (seen - (units - self._base[1])) / seen
        self._base, self._sample_from = (newest, units), now
        self._judge(lost, now)

    def _judge(self, lost: float, now: float) -> None:
        if lost > TOLERATED:
            self._shrink(min(self.limit // 2, int(self.limit * AIM / lost)), now)
        elif lost > 0:
            self._clean_since = now
        elif now - self._clean_since >= CLEAN_TIME:
            self._clean_since = now
            self._pause = FIRST_PAUSE
            self.limit = min(WHOLE, self.limit * 2)

    def _shrink(self, limit: int, now: float) -> None:
        self._clean_since = now
        if limit < SMALLEST:
            self._go_plain(now)
        else:
            self.limit = limit

    def _go_plain(self, now: float) -> None:
        self._plain_until = now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self._silences = 1  # the next silence ends the attempt at once
        self.limit = SMALLEST
