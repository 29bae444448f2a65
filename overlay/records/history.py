"""The traffic between this node and each peer over the last hour: one sample every ten seconds, in bounded memory.

All series have their samples at the same moments.  An unknown value is NaN here and None in answers: before the peer
was added, while the forwarder did not report, over its restart, which resets its counters, and for loss and round trip
if nothing was measured.

A series takes 7.2 kB.  Up to SERIES peers have one: if there are more, those with the most recent packets.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

    from overlay.link.messages import PeerCounters

# Ours
INTERVAL = 10.0  # seconds between two samples
SAMPLES = 360  # of each series: one hour
SERIES = 1024  # peers that have one: 7.4 MB in all
QUIET = 600.0  # seconds without a packet, after which a series may go to a peer with packets

VALUES = (
    "sent_bytes_per_second",
    "received_bytes_per_second",
    "round_trip_seconds",
    "loss_ratio",
    "drops_per_second",
)
"""The values of a sample.  The loss is the part of the in-band pings that were not answered, 0 to 1."""
DECIMALS = {"round_trip_seconds": 6, "loss_ratio": 4}  # in answers; 1 for the others

_SENT, _RECEIVED, _ROUND_TRIP, _LOSS, _DROPS = range(len(VALUES))
_UNKNOWN = array("f", [math.nan]) * (len(VALUES) * SAMPLES)

Row: TypeAlias = "dict[str, list[float | None]]"


@dataclass(slots=True)
class _Count:
    """The counters of a forwarder for a peer at a time."""

    forwarder: object
    at: float
    sent: int
    received: int
    sent_packets: int
    received_packets: int
    drops: int

    @classmethod
    def of(cls, counters: PeerCounters, forwarder: object, at: float) -> _Count:
        return cls(
            forwarder,
            at,
            counters.tx_bytes,
            counters.rx_bytes,
            counters.tx_packets,
            counters.rx_packets,
            sum(counters.drops.values()),
        )

    def is_after(self, before: _Count) -> bool:
        """Return whether these counters continue *before*, so that the difference is the traffic between the two."""
        return (
            self.forwarder is before.forwarder
            and self.at > before.at
            and self.sent >= before.sent
            and self.received >= before.received
            and self.drops >= before.drops
        )


@dataclass(slots=True)
class _Series:
    values: array[float] = field(
        default_factory=lambda: _UNKNOWN[:]
    )  # SAMPLES of each of VALUES, one after the other
    active_at: float = -math.inf  # when packets were last seen to pass
    measured_by: str | None = None  # how the last round trip was measured


class History:
    """The series of all peers, by number.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self.taken = 0
        """How many samples have been started."""
        self._times: list[float] = []  # of the last SAMPLES, the oldest first
        self._counts: dict[int, _Count] = {}
        self._series: dict[int, _Series] = {}  # that of the peer longest without packets first

    def begin(self, now: float, peers: Collection[int]) -> None:
        """Start the sample of *now*, with all values unknown; forget all peers except *peers*."""
        for gone in self._counts.keys() - peers:
            del self._counts[gone]
        for gone in self._series.keys() - peers:
            del self._series[gone]
        self.taken += 1
        self._times = [*self._times[-SAMPLES + 1 :], now]
        for series in self._series.values():
            for value in range(len(VALUES)):
                self._enter(series, value, math.nan)

    def count(self, number: int, counters: PeerCounters, forwarder: object, now: float) -> bool:
        """Enter the counters of *forwarder* for a peer; return whether packets passed in both directions since the last
        sample.

        Counters of another forwarder than the last, or ones that were reset, only start a new difference.
        """
        before, count = self._counts.get(number), _Count.of(counters, forwarder, now)
        self._counts[number] = count
        if before is None or not count.is_after(before):
            self._series_of(number, -math.inf)
            return False
        sent, received = (
            count.sent_packets > before.sent_packets,
            count.received_packets > before.received_packets,
        )
        series = self._series_of(number, now if sent or received else -math.inf)
        if series is not None:
            seconds = count.at - before.at
            self._enter(series, _SENT, (count.sent - before.sent) / seconds)
            self._enter(series, _RECEIVED, (count.received - before.received) / seconds)
            self._enter(series, _DROPS, (count.drops - before.drops) / seconds)
        return sent and received

    def measured(self, number: int, round_trip: float | None, loss: float | None, by: str) -> None:
        """Enter a *round_trip* and a *loss* in the current sample; None leaves a value as it is."""
        series = self._series.get(number)
        if series is None:
            return
        if round_trip is not None:
            self._enter(series, _ROUND_TRIP, round_trip)
            series.measured_by = by
        if loss is not None:
            self._enter(series, _LOSS, loss)

    def times(self, most: int = SAMPLES) -> list[float]:
        """Return when the last *most* samples were taken, the oldest first."""
        return self._times[-most:]

    def row(self, number: int, samples: range) -> Row | None:
        """Return the given *samples* of a peer, numbered as ``taken`` counts; None if it has no series.

        Overwritten samples are unknown.
        """
        series, oldest = self._series.get(number), self.taken - SAMPLES
        if series is None:
            return None
        return {
            name: [
                _told(series.values[value * SAMPLES + each % SAMPLES], DECIMALS.get(name, 1))
                if each >= oldest
                else None
                for each in samples
            ]
            for value, name in enumerate(VALUES)
        }

    def measured_by(self, number: int) -> str | None:
        """Return how the last round trip to a peer was measured; None if none is kept."""
        series = self._series.get(number)
        return None if series is None else series.measured_by

    def _enter(self, series: _Series, value: int, number: float) -> None:
        series.values[value * SAMPLES + (self.taken - 1) % SAMPLES] = number

    def _series_of(self, number: int, active_at: float) -> _Series | None:
        """Return the series of a peer that carried packets at *active_at*, -inf for never; None if it has none."""
        series = self._series.get(number)
        if series is None:
            if len(self._series) >= SERIES:
                quiet = next(iter(self._series))
                if active_at - self._series[quiet].active_at < QUIET or active_at == -math.inf:
                    return None
                del self._series[quiet]
            series = self._series[number] = _Series()
        if active_at > series.active_at:
            series.active_at = active_at
            self._series[number] = self._series.pop(number)
        return series


def _told(number: float, decimals: int) -> float | None:
    return None if math.isnan(number) else round(number, decimals)
