"""The last events of this process: its log records, kept in bounded memory.

So users do not need the journal, and the kept events do not depend on which lines are written there.  Each level has
room of its own: a flood of debugging lines, or of handshakes in a large network, does not displace warnings.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

# Ours
LEVELS = ("debug", "info", "warning", "error")
TEXT_BYTES = 2048  # of one event
CUT = "..."
# Room for events from each level on, up to the next: their number, and the bytes of their texts.  Python objects take
# about 300 bytes in addition to each text, so the total is 1.3 MB at most.
ROOM = {
    logging.DEBUG: (500, 128 * 1024),
    logging.INFO: (1000, 256 * 1024),
    logging.WARNING: (1000, 256 * 1024),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log.  Its *number* counts from 1 in this process, *time* is in seconds since 1970."""

    number: int
    time: float
    level: str  # one of LEVELS
    text: str
    peer: str | None = None  # its subject


@dataclass(frozen=True, slots=True)
class Told:
    """Events in order.  *last* is the number of the last event of all, even if it was not asked for.

    *is_complete* is False if there were more than were asked for, or are kept.
    """

    events: list[Event]
    last: int
    is_complete: bool


def of_peer(name: str) -> dict[str, str]:
    """Return the ``extra`` argument for logging about the peer *name*."""
    return {"peer": name}


class Events(logging.Handler):
    """Keeps log records.  Any thread may log or ask."""

    def __init__(self) -> None:
        super().__init__()
        self.run = os.urandom(8).hex()
        """Identifies this process; the numbers of another process are unrelated."""
        self._last = 0
        self._kept = {level: _Ring(*room) for level, room in ROOM.items()}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        peer = getattr(record, "peer", None)
        self._last += 1
        event = Event(self._last, record.created, _level(record.levelno), _shorten(printable(text)), peer)
        self._kept[_floor(record.levelno)].add(event)

    def tell(self, most: int, since: int = 0, least: str = "info", peer: str | None = None) -> Told:
        """Return the last *most* events after number *since*, of the level *least* or above; if given, only of
        *peer*.
        """
        number = level_number(least)
        self.acquire()
        try:
            rings = [ring for floor, ring in self._kept.items() if floor >= _floor(number)]
            merged = list(heapq.merge(*(ring.after(since) for ring in rings), key=attrgetter("number")))
            last, lost = self._last, max(ring.lost for ring in rings)
        finally:
            self.release()
        wanted = [
            each
            for each in merged
            if level_number(each.level) >= number and (peer is None or each.peer == peer)
        ]
        return Told(wanted[-most:] if most else [], last, lost <= since and len(wanted) <= most)


class _Ring:
    """The last events, at most *most* with *size* bytes of text.  *lost* is the number of the last one that was
    dropped.
    """

    def __init__(self, most: int, size: int) -> None:
        self._most, self._size = most, size
        self._events: deque[tuple[Event, int]] = deque()
        self._used = 0
        self.lost = 0

    def add(self, event: Event) -> None:
        size = len(event.text.encode())
        self._events.append((event, size))
        self._used += size
        while len(self._events) > self._most or self._used > self._size:
            oldest, gone = self._events.popleft()
            self._used -= gone
            self.lost = oldest.number

    def after(self, number: int) -> Iterable[Event]:
        """Return the events newer than *number*."""
        return [event for event, _ in self._events if event.number > number]


def level_number(name: str) -> int:
    """Return the logging module's number of one of LEVELS."""
    return logging.getLevelNamesMapping()[name.upper()]


def _level(number: int) -> str:
    """Return the level among LEVELS that *number* belongs to."""
    return next((name for name in reversed(LEVELS) if number >= level_number(name)), LEVELS[0])


def _floor(number: int) -> int:
    """Return the level whose room events of the level *number* share."""
    return max((level for level in ROOM if level <= number), default=logging.DEBUG)


def _shorten(text: str) -> str:
    """Return *text*, truncated to TEXT_BYTES."""
    data = text.encode()
    if len(data) <= TEXT_BYTES:
        return text
    return data[: TEXT_BYTES - len(CUT)].decode(errors="ignore") + CUT
