"""The log lines of peers: what happens often to one peer is told a few times, and then once a minute with its number."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.roster import Remote

# Ours
BURST = 5  # lines on one event of one peer, before they come once a minute
MINUTE = 60.0  # seconds
SWEEP_INTERVAL = BURST * MINUTE  # seconds; what was quiet for that long is as if it had never been

log = logging.getLogger("overlay")


@dataclass(slots=True)
class _Line:
    permits: float  # lines that may be written now
    since: float
    held: int = 0  # events that no line has told of
    text: str = ""  # of the last of them
    level: int = logging.INFO


class Journal:
    """Writes one line for each event, unless there are too many.  Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str], _Line] = {}
        self._held: set[tuple[int, str]] = set()
        self._swept_at = 0.0

    def tell(self, level: int, event: str, remote: Remote, fields: str, now: float, count: int = 1) -> None:
        """Write that *event* happened *count* times to *remote*, now or, with the last *fields*, in a later line."""
        place = remote.number, event
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line(BURST, now)
        line.held += count
        line.level, line.text = level, f"{event} peer={remote.peer.name} {fields}".rstrip()
        self._write(place, line, now)

    def turn(self, now: float) -> None:
        """Write the lines whose minute has come."""
        for place in list(self._held):
            self._write(place, self._lines[place], now)
        if now - self._swept_at >= SWEEP_INTERVAL:
            self._swept_at = now
            quiet = [
                place
                for place, line in self._lines.items()
                if not line.held and now - line.since >= SWEEP_INTERVAL
            ]
            for place in quiet:
                del self._lines[place]

    def _write(self, place: tuple[int, str], line: _Line, now: float) -> None:
        line.permits = min(BURST, line.permits + (now - line.since) / MINUTE)
        line.since = now
        if line.permits < 1:
            self._held.add(place)
            return
        self._held.discard(place)
        line.permits -= 1
        log.log(line.level, "%s%s", line.text, f" times={line.held}" if line.held > 1 else "")
        line.held = 0
