"""Weighted overflow: a server is filled before the next one gets its first flow."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import InOrder, Kind, Loads


class Overflow(InOrder):
    """Takes the server with the highest weight among those that have no more active flows than their weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the first of the servers with the highest weight among those that are not full."""
        free = [server for server in self.takers(loads) if loads.active[server.index] <= server.weight]
        return max(free, key=lambda server: server.weight).index if free else None


KIND = Kind(
    "ovf",
    Overflow,
    "fills the server with the highest weight up to one more active flow than its weight, then the next, then refuses",
)
