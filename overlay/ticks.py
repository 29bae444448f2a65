"""Looks that are due once a second, together: an idle agent wakes once for all of them."""

from __future__ import annotations

import math

import trio


async def next_second() -> None:
    """Sleep until the next whole second of trio's clock."""
    await trio.sleep_until(math.floor(trio.current_time()) + 1.0)
