"""``tcp``: the server accepts a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.services.checking import Result

if TYPE_CHECKING:
    from overlay.services.checks.way import Way
    from peers.service import Check


async def run(_: Check, way: Way) -> Result:
    """Connect, and leave at once."""
    await way.knock()
    return Result(True, f"accepts connections at port {way.port}")
