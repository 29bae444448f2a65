"""A thread that waits for disks, so that nothing else does: not packets, not the control socket, not a stop.

A file system may not answer for hours, for example that of a server that is gone.  The agent then goes on with what it
has, and reports it; a thread that hangs is abandoned when the agent ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from peers.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Ours
PATIENCE = 60.0  # seconds; a table of 50,000 peers takes a quarter of that


class DiskThread:
    """Makes one call at a time."""

    def __init__(self, where: str, patience: float = PATIENCE) -> None:
        """*where* names what is read, in errors."""
        self._where, self._patience = where, patience
        self._thread = trio.CapacityLimiter(1)  # not shared with look-ups of names

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """Return the result of *call*.  Raises its errors, and StoreError if it takes too long.

        A call that was given up may still be running; later calls wait for its end.
        """
        with trio.move_on_after(self._patience):
            return await trio.to_thread.run_sync(
                call, *arguments, limiter=self._thread, abandon_on_cancel=True
            )
        raise StoreError(
            f"{self._where} and the files beside it could not be read within {self._patience:g} s: "
            "see whether their file system answers"
        )
