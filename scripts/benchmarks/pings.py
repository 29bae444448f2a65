"""Round trips of small packets while something else happens, distinguished by the time at which they were sent."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.netns.topology import Namespace

INTERVAL = 0.002  # seconds between two pings
PATIENCE = 1.0  # seconds for the last answers
LONGEST = 300  # seconds; then ping ends by itself

_ANSWER = re.compile(r"^\[([\d.]+)\] .* icmp_seq=(\d+) .* time=([\d.]+) ms", re.MULTILINE)


@dataclass(frozen=True)
class Ping:
    """One echo request: when it was sent, in seconds since 1970, and how long its answer took, in microseconds."""

    sent: float
    took: float
    """Infinite if no answer came."""


class Pings:
    """Echo requests that are sent from now on, until ``stop``."""

    def __init__(self, sender: Namespace, address: str) -> None:
        self._process = sender.popen(
            *("ping", "-n", "-D", "-i", str(INTERVAL), "-w", str(LONGEST), address), stdout=subprocess.PIPE
        )
        self._output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> list[Ping]:
        """Wait for the last answers, and return every request up to the last answered one, in order."""
        time.sleep(PATIENCE)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        answers = {
            int(number): (float(at), float(milliseconds) / 1000)
            for at, number, milliseconds in _ANSWER.findall(self._output)
        }
        pings: list[Ping] = []
        sent = 0.0
        for number in range(min(answers, default=1), max(answers, default=0) + 1):
            if number in answers:
                at, took = answers[number]
                sent = at - took
                pings.append(Ping(sent, took * 1e6))
            else:
                sent += INTERVAL
                pings.append(Ping(sent, math.inf))
        return pings

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._output = self._process.stdout.read()


def during(pings: Sequence[Ping], windows: Sequence[tuple[float, float]]) -> list[float]:
    """Return how long the answers to requests sent within one of *windows* took, in microseconds."""
    return [ping.took for ping in pings if any(began <= ping.sent <= ended for began, ended in windows)]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed; infinite if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.inf
