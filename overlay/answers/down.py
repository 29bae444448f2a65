"""The end of the agent, which comes when the answer has left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows


async def answer(running: Running, request: Request, _tell_rows: TellRows) -> Answer:
    """Say which process is about to end; where this host is to leave, its subnet is given back before."""
    told: Answer = {"ok": True, "pid": os.getpid()}
    if request.get("leave"):
        store = running.store
        if not isinstance(store, AttendedStore):
            where = running.options.peers
            return {
                "ok": False,
                "kind": "failed",
                "error": f"{where} is a file, which this host does not leave: "
                "remove it there, and stop the agent without --leave",
            }
        if (problem := await store.leave()) is not None:
            told["problem"] = problem
    return told
