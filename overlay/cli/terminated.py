"""Commands that have something to clean up when they are told to end by another signal than that of Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Ours
ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; afterwards the process ends by that signal.

    A signal that is ignored, as SIGHUP below nohup, stays ignored.
    """
    caught: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # ignored, as in the background of a script
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    heeded = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)
        if caught:
            signal.raise_signal(caught[0])
