"""The containers that are attached here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.answers.asked_container import REFUSED, refused

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

# Ours
ROWS_AT_ONCE = 100


async def answer(running: Running, _request: Answer, tell_rows: TellRows) -> Answer:
    """Send a row for each, and return their number."""
    try:
        found = await running.containers.all()
    except REFUSED as error:
        return refused(error)
    rows: list[Answer] = [
        {
            "network": each.holder.network,
            "container": each.holder.container,
            "interface": each.holder.interface,
            "addresses": [str(address) for address in each.addresses],
            "device": each.outer,
            "mac": each.mac,
        }
        for each in found
    ]
    for at in range(0, len(rows), ROWS_AT_ONCE):
        await tell_rows(rows[at : at + ROWS_AT_ONCE])
    return {"ok": True, "count": len(rows)}
