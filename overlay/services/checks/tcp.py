"""``tcp``: the server accepts a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.services.checking import Result
from overlay.services.checks.exchange import Exchange

if TYPE_CHECKING:
    from overlay.services.checks.way import Way
    from peers.service import Check


async def run(_: Check, way: Way) -> Result:
    """Connect, and leave at once."""
    await way.knock()
    return _accepted(way.port)


def exchange(check: Check, way: Way) -> Exchange:
    """Return the same as one exchange."""
    return Exchange(check.timeout, connected=_accepted(way.port))


def _accepted(port: int) -> Result:
    return Result(True, f"accepts connections at port {port}")
