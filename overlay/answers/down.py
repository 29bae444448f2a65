"""Stops the agent, after the answer has been sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.questions import refusal
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.config import Options
    from overlay.questions import Answer, Request, TellRows
    from peers.stores.store import Store


async def answer(running: Running, request: Request, _tell_rows: TellRows) -> Answer:
    """Return the process that is about to end.  With ``leave`` the host's subnet is given back first."""
    return await end(request, running.store, running.options)


async def end(request: Request, store: Store, options: Options) -> Answer:
    """Return the answer of an agent with *options* whose peers come from *store*."""
    told: Answer = {"ok": True, "pid": os.getpid()}
    if request.get("leave"):
        if not isinstance(store, AttendedStore):
            return refusal(
                f"{options.peers} is a file, which this host does not leave: "
                "remove it there, and stop the agent without --leave"
            )
        if (problem := await store.leave()) is not None:
            told["problem"] = problem
    return told
