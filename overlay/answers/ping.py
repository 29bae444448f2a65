"""An in-band ping of one peer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from overlay.answers.peer import find_peer, refuse_peer
from overlay.link.messages import PINGS_WAITING
from overlay.questions import refusal
from overlay.supervision.forwarder import ForwarderGoneError

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

# Ours
PING_TIMEOUT = 60.0  # seconds; no request for a ping waits longer


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Ping a peer.  ``is_possible`` says whether it is known to answer pings, ``seconds`` how long the answer took."""
    asked, timeout = request.get("name"), request.get("timeout")
    remote = find_peer(asked, running.roster)
    if remote is None:
        return refuse_peer(asked, running)
    if not isinstance(timeout, int | float) or not timeout > 0:
        return refusal("a ping needs a timeout in seconds, above 0")
    if running.supervisor.pings_waiting >= PINGS_WAITING:
        return refusal(f"{PINGS_WAITING} pings are waiting for an answer: try again later", "busy")
    pong = None
    with contextlib.suppress(ForwarderGoneError):
        pong = await running.supervisor.ping(remote.number, min(timeout, PING_TIMEOUT))
    seconds = pong.seconds if pong is not None else None
    return {"ok": True, "ping": {"is_possible": pong is None or seconds is not None, "seconds": seconds}}
