"""That an administrator has looked at the store, and its history is the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.questions import refusal
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows


async def answer(running: Running, _request: Request, _tell_rows: TellRows) -> Answer:
    """Follow the store again; return what was found of its history, None if it is already followed."""
    if not isinstance(running.store, AttendedStore):
        return refusal(f"{running.options.peers} is a file, and is read whenever it changes")
    return {"ok": True, "history": running.store.accept()}
