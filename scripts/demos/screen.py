"""The user's side of a demo: steps on the screen, and signals that end it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class DemoError(Exception):
    """A step failed; the text is one sentence."""


class StoppedError(BaseException):
    """The user wants the demo to end."""


class Interruptions:
    """Raises StoppedError at the first signal, wherever the program is, unless it must not be interrupted there."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_pending = False
        self._is_over = False

    def watch(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Ignore signals from now on."""
        self._is_over = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Postpone signals until the end of the block."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if self._is_pending:
                self.stop()

    def stop(self) -> None:
        """Raise StoppedError, once."""
        if not self._is_over:
            self._is_over = True
            raise StoppedError

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_held:
            self._is_pending = True
        else:
            self.stop()


class Screen:
    """The output: one line for each step."""

    def __init__(self, interruptions: Interruptions) -> None:
        self._interruptions = interruptions
        self._is_terminal = sys.stdout.isatty()
        self._is_gone = False
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
        try:
            "✔✘".encode(sys.stdout.encoding)
            self._tick, self._cross = "✔", "✘"
        except UnicodeEncodeError:
            self._tick, self._cross = "ok", "FAILED"

    def say(self, text: str = "", end: str = "\n") -> None:
        """Print *text*.  If nobody reads it any more, the demo stops as at Ctrl-C."""
        if self._is_gone:
            return
        try:
            print(text, end=end, flush=True)
        except OSError:
            self._is_gone = True
            # The text that is still in the buffer must not fail again when the program ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._interruptions.stop()

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[list[str]]:
        """Show *text*, after the block with a tick and the notes that the block appended to the list."""
        notes: list[str] = []
        if self._is_terminal:
            self.say(f"  {text} ...", end="")
        clear = "\r\033[K" if self._is_terminal else ""
        try:
            yield notes
        except BaseException:
            with contextlib.suppress(StoppedError):
                self.say(f"{clear}{self._cross} {text}")
            raise
        self.say(f"{clear}{self._tick} {': '.join([text, *notes])}")
