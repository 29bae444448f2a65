"""Never queue: an idle server if there is one, else the shortest expected delay."""

from __future__ import annotations

from overlay.services.schedulers.scheduler import Kind, Loads
from overlay.services.schedulers.sed import ShortestExpectedDelay


class NeverQueue(ShortestExpectedDelay):
    """Leaves no server idle while another is busy."""

    def choose(self, flow: int, loads: Loads) -> int | None:
        """Return the index of the first server without active flows, else of the one with the shortest expected
        delay.
        """
        idle = (server.index for server in self.takers(loads) if not loads.active[server.index])
        found = next(idle, None)
        return super().choose(flow, loads) if found is None else found


KIND = Kind("nq", NeverQueue, "takes the first server without active flows, otherwise as `sed`")
