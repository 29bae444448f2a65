"""Regular expressions in what a server has sent, in bounded time: some inputs can be made to take years."""

from __future__ import annotations

import functools
from typing import Any

import regex
import trio

# Ours
PATIENCE = 0.1  # seconds of processor time; a normal expression takes a millisecond
LINE = trio.CapacityLimiter(4)  # searches at a time, and so the most processors that they use


async def is_found(expression: str, text: bytes) -> bool | None:
    """Return whether *expression* is found in *text*; None if that takes too long.

    It does not hold up other tasks.  Raises ValueError for an invalid expression.
    """
    return await trio.to_thread.run_sync(_search, expression, text, limiter=LINE)


def _search(expression: str, text: bytes) -> bool | None:
    try:
        found = _compiled(expression).search(
            text, timeout=PATIENCE, concurrent=True
        )  # without the interpreter's lock
    except TimeoutError:
        return None
    return found is not None


@functools.lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    try:
        return regex.compile(expression.encode())
    except regex.error as error:
        raise ValueError(str(error)) from None
