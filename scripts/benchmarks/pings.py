"""Round trips of small packets while something else happens, told apart by when they were under way."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.netns.topology import Namespace

INTERVAL = 0.002  # seconds between two pings
PATIENCE = 2.0  # seconds for the last answer

_ANSWER = re.compile(r"^\[([\d.]+)\] .* icmp_seq=(\d+) .* time=([\d.]+) ms", re.MULTILINE)


@dataclass(frozen=True)
class Ping:
    """One echo request: when it was sent, in seconds since 1970, and how long its answer took, in microseconds."""

    sent: float
    took: float
    """Infinite where no answer came."""


class Pings:
    """Echo requests that are sent from now on, for *seconds*."""

    def __init__(self, sender: Namespace, address: str, seconds: float) -> None:
        count = max(1, round(seconds / INTERVAL))
        self._count, self._patience = count, 2 * seconds + PATIENCE + 30
        self._process = sender.popen(
            *("ping", "-n", "-D", "-i", str(INTERVAL), "-W", str(PATIENCE), "-c", str(count), address),
            stdout=subprocess.PIPE,
        )

    def finish(self) -> list[Ping]:
        """Wait for the end, and return every request in order."""
        output = self._process.communicate(timeout=self._patience)[0]
        answers = {
            int(number): (float(at), float(milliseconds))
            for at, number, milliseconds in _ANSWER.findall(output)
        }
        pings: list[Ping] = []
        sent = 0.0
        for number in range(1, self._count + 1):
            if number in answers:
                at, milliseconds = answers[number]
                sent = at - milliseconds / 1000
                pings.append(Ping(sent, milliseconds * 1000))
            else:
                sent += INTERVAL
                pings.append(Ping(sent, math.inf))
        return pings


def during(pings: Sequence[Ping], windows: Sequence[tuple[float, float]]) -> list[float]:
    """Return how long the answers took, in microseconds, of those sent within one of *windows*."""
    return [ping.took for ping in pings if any(began <= ping.sent <= ended for began, ended in windows)]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed; infinite where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.inf
