"""How a capture is ended from outside: by a signal, or because its end takes too long."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ours
ENDING = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.2  # seconds; a signal that comes between the last look and the system call that waits would not end that


class Ending:
    """Whether the capture should end.

    KeyboardInterrupt is raised only where the capture waits, so that no computation is left half done.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waiting = False

    def ask(self, *_: object) -> None:
        """End the current wait, or otherwise the next one; this handles signals."""
        self.is_asked = True
        if self._is_waiting:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Wait in the block.  Raises KeyboardInterrupt as soon as the capture should end."""
        self._is_waiting = True
        try:
            if self.is_asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_waiting = False

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """Make SIGINT and SIGTERM only ask for the end inside the block; after() and last() may be called there."""
        before = {number: signal.signal(number, self.ask) for number in (*ENDING, signal.SIGALRM)}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def after(self, seconds: float) -> None:
        """Ask for the end after so many seconds, even during a wait for a reader that has stalled."""
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)

    def last(self, seconds: float) -> None:
        """Allow the remaining work to wait again, until another signal or for so many seconds: a reader may have
        stalled.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.is_asked = False
        self.after(seconds)


def write_some(descriptor: int, data: memoryview, written: list[int]) -> None:
    """Append to *written* how many bytes the kernel has accepted.  Raises OSError.

    A signal handler may raise as soon as Python runs it, but not before the number is in the list.
    """
    written.extend(map(os.write, (descriptor,), (data,)))
