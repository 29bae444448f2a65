"""An administrator's confirmation that the history of the store is the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.questions import refusal
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows


async def answer(running: Running, _request: Request, _tell_rows: TellRows) -> Answer:
    """Follow the store again; return what was found about its history, or None if it is followed already."""
    if not isinstance(running.store, AttendedStore):
        return refusal(f"{running.options.peers} is a file, and is read whenever it changes")
    return {"ok": True, "history": running.store.accept()}
