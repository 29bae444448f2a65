"""Monitoring over HTTP: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for supervisors and load balancers.

It shows names of peers, services and servers, and counters, but neither keys nor endpoints.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from overlay import ticks
from overlay.errors import HostError
from overlay.host.sockets.listening import listening
from peers.listening import TcpPlace

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from peers.listening import Listening

# Ours
RETRY_INTERVAL = 30.0  # seconds until an address that was taken, or not on this host, is tried again
UPGRADED = "; overlay was upgraded or removed while the agent ran: restart the agent"
SOCKET_MODE = 0o660  # of a unix socket: its directory decides who else may connect

log = logging.getLogger("overlay")


def wanted_place(running: Running) -> Listening | None:
    """Return where *running* serves metrics now, by its options or the network; None for nowhere."""
    return running.options.metrics or running.node().table.network.metrics


async def keep(running: Running) -> None:
    """Serve metrics at the configured place, which a reload may change, until cancelled.

    A failure becomes a note, because the tunnel works without metrics.  Nothing is loaded if no address is configured.
    """
    door = _Door(running)
    while True:
        place = wanted_place(running)
        if place is None:
            await ticks.next_second()
        else:
            await door.serve(place)
            door.note(None)


class _Door:
    def __init__(self, running: Running) -> None:
        self._running = running
        self._noted: str | None = None

    async def serve(self, place: Listening) -> None:
        """Serve at *place* while it is configured; return after a while if that fails."""
        try:
            from overlay.doors import metrics_pages  # noqa: PLC0415  it loads an HTTP library, and most nodes are not asked by HTTP

            with listening(place, SOCKET_MODE) as listener:
                self.note(describe_openness(place, self._running))
                log.info("metrics are served at=%s", place)
                incoming = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(metrics_pages.serve, incoming, place, self._running)
                    await self._wait_while_wanted(place)
                    nursery.cancel_scope.cancel()
                log.info("metrics are no longer served at=%s", place)
        except (HostError, ImportError) as error:
            remedy = "" if isinstance(error, HostError) else UPGRADED
            self.note(f"metrics are not served: {error}{remedy}")
            with trio.move_on_after(RETRY_INTERVAL):
                await self._wait_while_wanted(place)

    async def _wait_while_wanted(self, place: Listening) -> None:
        while wanted_place(self._running) == place:
            await ticks.next_second()

    def note(self, note: str | None) -> None:
        """Replace the previous note about metrics among the notes of the node with *note*."""
        if note == self._noted:
            return
        if self._noted is not None:
            self._running.notes.remove(self._noted)
        if note is not None:
            self._running.notes.append(note)
            log.warning("%s", note)
        self._noted = note


def describe_openness(place: Listening, running: Running) -> str | None:
    """Return a sentence if others than this host and the overlay may reach *place*; None if they may not."""
    if not isinstance(place, TcpPlace) or place.is_local:
        return None
    if any(place.address in prefix for prefix in running.node().table.network.prefixes):
        return None
    return (
        f"anyone who reaches {place} can read the metrics of this node, with the names of its peers and how much they "
        f"send: listen at 127.0.0.1 or an overlay address, or let a packet filter pass only the monitoring"
    )
