"""Weighted overflow: a server is filled before the next one has its first flow."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import InOrder, Kind, Loads


class Overflow(InOrder):
    """Takes the server of the highest weight that has no more active flows than its weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the highest weight among those that are not filled."""
        free = [server for server in self.takers(loads) if loads.active[server.index] <= server.weight]
        return max(free, key=lambda server: server.weight).index if free else None


KIND = Kind(
    "ovf",
    Overflow,
    "fills the server with the highest weight up to one more active flow than its weight, then the next, then refuses",
)
