"""The lowest level of the log lines that the agent writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.questions import refusal
from overlay.records.events import LEVELS

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows

# Ours
SCHEMA = 1


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Set the level to ``level``, if given, until the agent ends; return the level before and now."""
    wanted, before = request.get("level"), running.log.level
    if wanted is not None:
        if wanted not in LEVELS:
            return refusal(f"the levels are {', '.join(LEVELS)}")
        running.log.change_level(wanted)
    return {"ok": True, "schema": SCHEMA, "level": running.log.level, "former_level": before}
