"""Least connections."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import InOrder, Kind, Loads

# Specification (the kernel's include/net/ip_vs.h)
ACTIVE_COST = 256  # of an active flow; an inactive one costs 1


def cost(index: int, loads: Loads) -> int:
    """Return how busy the server of *index* is."""
    return loads.active[index] * ACTIVE_COST + loads.inactive[index]


class LeastConnections(InOrder):
    """Takes the server with the fewest flows, whatever its weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the fewest flows; *flow* does not matter."""
        takers = self.takers(loads)
        return min(takers, key=lambda server: cost(server.index, loads)).index if takers else None


KIND = Kind(
    "lc", LeastConnections, "takes the server with the fewest flows; weights do not matter, except for 0"
)
