"""Weighted round robin, as in the kernel's ip_vs_wrr.c.

A level goes down in steps of the greatest common divisor of the weights, from the largest weight to the smallest
multiple of it, and starts again; in each round of the list, all servers whose weight is not below the level have a
turn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.services.schedulers.scheduler import Kind, Loads, Real, RoundTheList

if TYPE_CHECKING:
    from collections.abc import Sequence


class WeightedRoundRobin(RoundTheList):
    """Takes the servers in turn, each as often as its weight says."""

    def __init__(self) -> None:
        super().__init__()
        self._step, self._highest, self._level = 1, 0, 0

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers* from now on.

        The kernel gets servers one by one, puts each before those that it has, and lets the first alone decide where
        the level begins.  This does the same, because otherwise the first round would differ.
        """
        first = len(servers) if self._servers else 1
        super().set_servers(servers)
        if not servers:
            self._level = 0
        for count in range(first, len(servers) + 1 if servers else 0):
            self._begin(servers[-count:])

    def _begin(self, servers: Sequence[Real]) -> None:
        weights = [server.weight for server in servers]
        self._step = math.gcd(*weights) or 1
        self._highest = max(0, max(weights) - (self._step - 1))
        if self._level > self._highest or not self._level:
            self._level = self._highest
        elif self._step > 1:
            self._level = self._level // self._step * self._step + 1

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the server whose turn it is; *flow* does not matter."""
        servers, full, place, level = self._servers, loads.full, self._last, self._level
        most = max((server.weight for server in servers if server.index not in full), default=0)
        while most:
            place += 1
            if place == len(servers):
                place, level = 0, level - self._step
                if level <= 0:
                    level = self._highest
                if level > most:  # skips rounds in which no server would have a turn
                    level -= -((most - level) // self._step) * self._step
            server = servers[place]
            if server.weight >= level and server.index not in full:
                self._last, self._level = place, level
                return server.index
        return None


KIND = Kind("wrr", WeightedRoundRobin, "takes the servers in turn, each as often as its weight says")
