"""Removes the attachments that a container runtime no longer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.asked_container import REFUSED, refused
from overlay.containers.addresses import Holder
from overlay.containers.attachments import MOST

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Detach all in ``network`` except those in ``valid``, pairs of container and interface; return how many."""
    try:
        valid, network = request.get("valid"), request.get("network")
        if not isinstance(valid, list) or len(valid) > MOST:
            raise ValueError(f"valid must be a list of at most {MOST} pairs")
        holders = {Holder.parse(network, *_pair(each)) for each in valid}
        network = Holder.parse(network, "any", "any").network
        known = {(each.container, each.interface) for each in holders}
        removed = await running.containers.collect(network, known)
    except REFUSED as error:
        return refused(error)
    return {"ok": True, "count": len(removed)}


def _pair(row: object) -> tuple[object, object]:
    match row:
        case [container, interface]:
            return container, interface
    raise ValueError("valid must have pairs of a container and an interface")
