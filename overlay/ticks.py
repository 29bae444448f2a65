"""Checks that are due once a second run together: an idle agent wakes once for all of them."""

from __future__ import annotations

import math

import trio


def this_second() -> int:
    """Return the number of the current whole second of trio's clock."""
    return math.floor(trio.current_time())


async def next_second() -> None:
    """Sleep until the next whole second of trio's clock."""
    await trio.sleep_until(this_second() + 1.0)


async def about(seconds: float) -> None:
    """Sleep until the last whole second within *seconds*: never later, and less than a second sooner.

    Less than one second is slept exactly.
    """
    ends = trio.current_time() + seconds
    await trio.sleep_until(ends if seconds < 1.0 else math.floor(ends))
