"""A thread that waits for disks, so that nothing else does: not packets, not the control socket, not a stop.

A file system may not answer for hours, for example that of a server that is gone.  The agent then goes on with what it
has, and reports it; a thread that hangs is abandoned when the agent ends.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from peers.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Ours
PATIENCE = 60.0  # seconds; a table of 100,000 peers takes half of that on an idle host
PROGRESS = 0.001  # seconds of processor time meanwhile; a call on a busy host uses more, one that hangs on a disk less


class DiskThread:
    """Makes one call at a time."""

    def __init__(self, where: str, patience: float = PATIENCE) -> None:
        """*where* names what is read, in errors."""
        self._where, self._patience = where, patience
        self._thread = trio.CapacityLimiter(1)  # not shared with look-ups of names

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """Return the result of *call*.  Raises its errors, and StoreError if it makes no progress for too long.

        A call that was given up may still be running; later calls wait for its end.
        """
        work = _Work(call, arguments)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up, work, nursery.cancel_scope)
            await trio.to_thread.run_sync(work.do, limiter=self._thread, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
        if work.error is not None:
            raise work.error
        if work.result is None:
            raise StoreError(
                f"{self._where} and the files beside it could not be read within {self._patience:g} s: "
                "see whether their file system answers"
            )
        return work.result[0]

    async def _give_up(self, work: _Work[T], waiting: trio.CancelScope) -> None:
        """Cancel *waiting* once *work* has used no processor time for a while."""
        used = 0.0
        while True:
            await trio.sleep(self._patience)
            before, used = used, work.used()
            if used < before + PROGRESS:
                waiting.cancel()


class _Work(Generic[T]):
    """A call that a thread makes, and its outcome: one result, or an error."""

    def __init__(self, call: Callable[..., T], arguments: tuple[object, ...]) -> None:
        self._call, self._arguments = call, arguments
        self._clock: int | None = None  # of the processor time of the thread
        self._begun = 0.0
        self.result: tuple[T] | None = None
        self.error: Exception | None = None

    def do(self) -> None:
        """Make the call, in the thread."""
        self._begun = time.thread_time()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            self.result = (self._call(*self._arguments),)
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            self.error = error

    def used(self) -> float:
        """Return how many seconds of processor time the thread has used; it must not have ended."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock) - self._begun
