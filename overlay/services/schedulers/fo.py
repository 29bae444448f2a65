"""Weighted failover: everything goes to one server as long as it is up."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import InOrder, Kind, Loads


class FailOver(InOrder):
    """Takes the server with the highest weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the highest weight; *flow* does not matter."""
        takers = self.takers(loads)
        return max(takers, key=lambda server: server.weight).index if takers else None


KIND = Kind("fo", FailOver, "takes the server with the highest weight as long as it is up", is_function=True)
