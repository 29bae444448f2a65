"""The agent's answers on its control socket: one file for each question, and a line in the registry below."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from overlay.answers import (
    accept_store,
    attach,
    attachments,
    can_attach,
    capture,
    check_attachment,
    check_server,
    collect,
    detach,
    doctor,
    down,
    events,
    explain,
    flows,
    history,
    log_level,
    own_keys,
    peer,
    ping,
    services,
    set_server,
    status,
)
from overlay.questions import refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows

Question: TypeAlias = "Callable[[Running, Request, TellRows], Awaitable[Answer]]"

QUESTIONS: dict[str, Question] = {
    "accept_store": accept_store.answer,
    "attach": attach.answer,
    "attachments": attachments.answer,
    "can_attach": can_attach.answer,
    "capture": capture.answer,
    "check_attachment": check_attachment.answer,
    "check_server": check_server.answer,
    "collect": collect.answer,
    "detach": detach.answer,
    "doctor": doctor.answer,
    "down": down.answer,
    "events": events.answer,
    "explain": explain.answer,
    "flows": flows.answer,
    "history": history.answer,
    "log_level": log_level.answer,
    "own_keys": own_keys.answer,
    "peer": peer.answer,
    "ping": ping.answer,
    "services": services.answer,
    "set_server": set_server.answer,
    "status": status.answer,
}
"""By the ``op`` of a request.  An answer may send rows first, a few at a time, such as the status of many peers."""


async def answer(running: Running, request: Request, tell_rows: TellRows) -> Answer:
    """Return the answer to *request*, which any process of root may have written."""
    op = request.get("op")
    question = QUESTIONS.get(op) if isinstance(op, str) else None
    if question is None:
        return refusal("this agent does not know that request")
    return await question(running, request, tell_rows)
