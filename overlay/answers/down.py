"""The end of the agent, which comes when the answer has left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows


async def answer(_running: Running, _request: Answer, _tell_rows: TellRows) -> Answer:
    """Say which process is about to end."""
    return {"ok": True, "pid": os.getpid()}
