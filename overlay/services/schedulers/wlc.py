"""Weighted least connections."""

from __future__ import annotations

from overlay.services.schedulers.lc import cost
from overlay.services.schedulers.scheduler import InOrder, Kind, Loads


class WeightedLeastConnections(InOrder):
    """Takes the server with the fewest flows for its weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the fewest flows for their weight;
        *flow* does not matter.
        """
        best, least = None, 0
        for server in self.takers(loads):
            busy = cost(server.index, loads)
            if best is None or least * server.weight > busy * best.weight:
                best, least = server, busy
        return None if best is None else best.index


KIND = Kind("wlc", WeightedLeastConnections, "takes the server with the fewest flows relative to its weight")
