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

    *receive* gets the answer piece by piece, and b"" at the end of a stream.  It returns the result once there is one,
    at the end at the latest.  *connected* is the result of a check for which a connection is enough; *silent* is the
    result if no answer has come after *patience* seconds, None if that is a failure.
    """

    patience: float
    protocol: int = PROTOCOL_TCP
    request: bytes = b""
    receive: Callable[[bytes], Result | None] = lambda _: None
    connected: Result | None = None
    silent: Result | None = None
