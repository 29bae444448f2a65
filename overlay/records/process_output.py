"""The standard output and error of a process as lines for a log: bounded, and in printable characters.

A forwarder prints only the reason when it fails.  One that an attacker has taken over can print anything, as fast as it
likes: beyond a burst, its lines are counted and not shown.
"""

from __future__ import annotations

from overlay.text import printable

# Ours
LINE_BYTES = 1000  # longer lines are truncated; lines of a traceback are shorter
BURST = 100  # lines at once: two tracebacks
INTERVAL = 10.0  # seconds for one more line


class ProcessOutput:
    """Splits the output into lines, as far as they may be shown."""

    def __init__(self) -> None:
        self._rest = b""  # of an unfinished line
        self._is_cut = False  # the unfinished line was shown already, truncated
        self._allowance = float(BURST)
        self._asked_at: float | None = None
        self._hidden = 0

    def feed(self, data: bytes, now: float) -> list[str]:
        """Take the next bytes and return the lines that they complete, as far as the rate allows."""
        *ended, self._rest = (self._rest + data).split(b"\n")
        shown: list[str] = []
        for line in ended:
            if not self._is_cut:
                self._show(line, now, shown)
            self._is_cut = False
        if len(self._rest) > LINE_BYTES:
            if not self._is_cut:
                self._show(self._rest, now, shown)
            self._is_cut, self._rest = True, b""
        return shown

    def end(self, now: float) -> list[str]:
        """Return the rest at the end of the output, and how many lines were not shown; then another process may
        begin.
        """
        shown = self.feed(b"\n", now) if self._rest else []
        self._is_cut = False
        self._tell_hidden(shown)
        return shown

    def _show(self, line: bytes, now: float, shown: list[str]) -> None:
        text = printable(line[:LINE_BYTES].decode(errors="replace").rstrip())
        if not text:
            return
        if self._asked_at is not None:
            self._allowance = min(BURST, self._allowance + (now - self._asked_at) / INTERVAL)
        self._asked_at = now
        if self._allowance < 1:
            self._hidden += 1
            return
        self._allowance -= 1
        self._tell_hidden(shown)
        shown.append(text if len(line) <= LINE_BYTES else f"{text}...")

    def _tell_hidden(self, shown: list[str]) -> None:
        if self._hidden:
            shown.append(f"(lines that were not shown: {self._hidden})")
            self._hidden = 0
