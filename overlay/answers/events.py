"""The last events, as far as this agent keeps them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from overlay.answers.peer import find_peer, refuse_peer
from overlay.questions import refusal
from overlay.records.events import LEVELS

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows
    from overlay.records.events import Event

# Ours
LIMIT, MOST = 100, 5000  # events: the default, and the most that a request may ask for
ROWS_AT_ONCE = 100  # sent in one piece


async def answer(running: Running, request: Answer, tell_rows: TellRows) -> Answer:
    """Send the last events, the oldest of them first.

    ``limit`` is the most to send, ``since`` the number of an event that all of them are later than, ``level`` the
    lowest level, and ``name`` the peer that they are about, or an address of it; the peer may have been removed.
    """
    events, level, asked = running.log.events, request.get("level", "info"), request.get("name")
    if level not in LEVELS:
        return refusal(f"level must be one of {', '.join(LEVELS)}", "usage")
    try:
        since, limit = _whole(request, "since", 0), min(_whole(request, "limit", LIMIT), MOST)
    except ValueError as error:
        return refusal(str(error), "usage")
    peer = None
    if asked is not None:
        remote = find_peer(asked, running.roster)
        peer = str(asked) if remote is None else remote.peer.name
        if remote is None and not events.tell(1, 0, "debug", peer).events:
            return refuse_peer(asked, running)
    told = events.tell(limit, since, level, peer)
    for at in range(0, len(told.events), ROWS_AT_ONCE):
        await tell_rows([_row(each) for each in told.events[at : at + ROWS_AT_ONCE]])
    return {
        "ok": True,
        "run": events.run,
        "last": told.last,
        "is_complete": told.is_complete,
    }


def _row(event: Event) -> dict[str, Any]:
    row = asdict(event)
    return {"number": row.pop("number"), "timestamp_seconds": round(row.pop("time"), 3), **row}


def _whole(request: Answer, key: str, default: int) -> int:
    value = request.get(key, default)
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} must be a whole number from 0 on")
    return value
