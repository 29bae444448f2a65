"""Round robin: the next server in the list."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import Kind, Loads, RoundTheList


class RoundRobin(RoundTheList):
    """Takes the servers in turn, whatever their weight."""

    def choose(self, flow: int, loads: Loads) -> int | None:  # noqa: ARG002
        """Return the index of the next server after the last one chosen; *flow* does not matter."""
        servers, full, count = self._servers, loads.full, len(self._servers)
        for step in range(1, count + 1):
            place = (self._last + step) % count
            server = servers[place]
            if server.weight and server.index not in full:
                self._last = place
                return server.index
        return None


KIND = Kind("rr", RoundRobin, "takes the servers in turn; weights do not matter, except for 0")
