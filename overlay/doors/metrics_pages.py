"""The pages that overlay/doors/metrics.py serves: ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.readiness import why_not_alive, why_not_ready
from overlay.doors import http
from overlay.doors.fresh import Fresh
from overlay.doors.hosts import Hosts
from overlay.metrics.collecting import collect
from overlay.metrics.exposition import OPENMETRICS_TYPE, PLAIN_TYPE, wants_openmetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio

    from overlay.answers.running import Running
    from overlay.metrics.exposition import Samples
    from peers.listening import Listening

# Ours
LIMITS = http.Limits(
    connections=16,
    idle=130.0,  # twice a minute, the longest usual scrape interval, and a little more
)

MISDIRECTED = (
    "this is not a name of this host: ask by the address that the agent listens at or, unless that is a loopback "
    "address, by what `hostname -f` prints there"
)


async def serve(listener: trio.SocketListener, place: Listening, running: Running) -> None:
    """Answer requests at *listener*, which it closes, until cancelled; it listens at *place*."""
    await http.serve(listener, Pages(place, running).answer, LIMITS, who="scrapes of metrics")


class Pages:
    """The pages of *running*, for clients whose Host header names this host at *place*."""

    def __init__(self, place: Listening, running: Running) -> None:
        self._hosts = Hosts(place)
        self._scrape = Fresh(lambda: collect(running))
        self._health = {
            "/healthz": Fresh(lambda: why_not_alive(running)),
            "/readyz": Fresh(lambda: why_not_ready(running)),
        }

    async def answer(self, request: http.Request) -> http.Reply:
        """Return the page that *request* asks for."""
        if (refused := http.refuse_method(request, "GET", "HEAD")) is not None:
            return refused
        if not await self._hosts.include(request.headers.get("host", "")):
            return http.say(421, MISDIRECTED)
        if request.path == "/metrics":
            is_openmetrics = wants_openmetrics(request.headers.get("accept", ""))
            pieces = _pieces(await self._scrape.take(), is_openmetrics=is_openmetrics)
            return http.Reply(200, pieces, OPENMETRICS_TYPE if is_openmetrics else PLAIN_TYPE)
        if (health := self._health.get(request.path)) is not None:
            trouble = await health.take()
            return http.say(200, "ok") if trouble is None else http.say(503, trouble)
        return http.say(404, "not found: the paths are /metrics, /healthz and /readyz")


async def _pieces(samples: Samples, *, is_openmetrics: bool) -> AsyncGenerator[bytes, None]:
    for piece in samples.render(is_openmetrics=is_openmetrics):
        yield piece
