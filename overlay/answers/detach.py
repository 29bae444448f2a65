"""Removes a container's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.asked_container import REFUSED, holder_of, refused

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Remove the interface and release its addresses; it is not an error if it is gone already."""
    try:
        await running.containers.detach(holder_of(request))
    except REFUSED as error:
        return refused(error)
    return {"ok": True}
