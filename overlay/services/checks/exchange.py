"""A check that is one exchange: something is sent, and the answer decides.

Such a check needs no task of its own: thousands can run side by side in the task that has their sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.wire.ip import PROTOCOL_TCP

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.services.checking import Result


@dataclass(slots=True)
class Exchange:
    """What one check sends by *protocol*, TCP or UDP, and what it makes of the answer.

    *receive* gets what comes, piece by piece, nothing (b"") for the end of a stream, and returns the result once there
    is one; it returns one at the end.  *connected* is the result of a check that asks for no more than a connection;
    *silent* that of one to which nothing has come after *patience* seconds, None if that is a failure.
    """

    patience: float
    protocol: int = PROTOCOL_TCP
    request: bytes = b""
    receive: Callable[[bytes], Result | None] = lambda _: None
    connected: Result | None = None
    silent: Result | None = None
