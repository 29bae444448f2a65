"""``tcp``: the server accepts a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.services.checking import Result
from overlay.services.checks.exchange import Exchange

if TYPE_CHECKING:
    from overlay.services.checks.dialer import Dialer
    from peers.service import Check


async def run(_: Check, dialer: Dialer) -> Result:
    """Connect, and close the connection at once."""
    await dialer.knock()
    return _accepted(dialer.port)


def exchange(check: Check, dialer: Dialer) -> Exchange:
    """Return the same as one exchange."""
    return Exchange(check.timeout, connected=_accepted(dialer.port))


def _accepted(port: int) -> Result:
    return Result(True, f"accepts connections at port {port}")
