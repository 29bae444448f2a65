"""Shortest expected delay."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import InOrder, Kind, Loads


class ShortestExpectedDelay(InOrder):
    """Takes the server that will have the fewest active flows for its weight, counting the new one."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the shortest delay; *flow* does not matter."""
        best, least = None, 0
        for server in self.takers(loads):
            delay = loads.active[server.index] + 1
            if best is None or least * server.weight > delay * best.weight:
                best, least = server, delay
        return None if best is None else best.index


KIND = Kind(
    "sed",
    ShortestExpectedDelay,
    "takes the server with the fewest active flows relative to its weight, counting the new flow",
)
