"""An agent that waits for its network or an address before it is a node, and its answers meanwhile."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from overlay import questions
from overlay.answers import down
from overlay.ending import StoppedError
from overlay.host.process import notify
from peers.stores.membership import AttendedStore

if TYPE_CHECKING:
    import socket

    from overlay.config import Options
    from overlay.questions import Answer, Request, TellRows
    from peers.stores.store import Store

log = logging.getLogger("overlay")


class WaitingAgent:
    """An agent with *options* that begins to follow *store*, and answers the questions that arrive at *listener*."""

    def __init__(self, options: Options, store: Store, listener: socket.socket) -> None:
        self._options, self._store, self._listener = options, store, listener
        self._what, self._reason = "the network", f"it has just begun to follow {options.peers}"
        self._is_told = False

    def wait_for(self, what: str, reason: str, *, is_logged: bool = False) -> None:
        """Record that the agent waits for *what*, because of a *reason*, a sentence that is reported from now on.

        This is logged as well, unless the store has logged it.
        """
        self._what, self._reason = what, reason
        if not is_logged:
            log.warning("waiting for %s: %s", what, reason)
        elif not self._is_told:
            log.warning("waiting for %s", what)
        self._is_told = True
        notify.status(f"waiting for {what}: {reason}")

    async def serve(self) -> None:
        """Answer until cancelled.  Raises StoppedError once the answer to ``down`` was sent."""
        await questions.serve(self._listener, self._answer, self._answered)

    async def _answer(self, request: Request, _tell_rows: TellRows) -> Answer:
        """Return the answer to *request*: nearly always that the agent is waiting."""
        store = self._store
        if request.get("op") == "down":
            return await down.end(request, store, self._options)
        if request.get("op") == "accept_store" and isinstance(store, AttendedStore):
            return {"ok": True, "history": store.accept()}
        who = f"the agent of {self._options.interface} (process {os.getpid()})"
        return questions.refusal(f"{who} is waiting for {self._what}", "waiting") | {"reason": self._reason}

    def _answered(self, request: Answer, reply: Answer) -> None:
        if request.get("op") == "down" and reply["ok"]:
            log.info("stopping cause=down")
            notify.stopping()
            raise StoppedError
