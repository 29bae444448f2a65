"""The agent's log: its destination, its lowest level, and the format of lines for people and for the journal."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING, Any, TextIO

from overlay.records.events import Events, level_number
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

# Specification: sd-daemon(3), syslog(3)
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Log:
    """The log: *output* writes lines from its level on, and *events* keeps records of *logger*."""

    logger: logging.Logger
    output: logging.Handler
    events: Events

    @property
    def level(self) -> str:
        """Return the lowest level of lines that are written, such as ``info``."""
        return logging.getLevelName(self.output.level).lower()

    def set_level(self, name: str) -> None:
        """Write lines from the level *name* on.  Events from ``info`` on are kept in any case."""
        number = level_number(name)
        self.output.setLevel(number)
        self.logger.setLevel(min(number, logging.INFO))

    def change_level(self, name: str) -> None:
        """Set the level while the process runs, and log the change if either level allows it."""
        before, number = self.level, level_number(name)
        if name == before:
            return
        self.output.setLevel(min(number, self.output.level))
        self.logger.info("log level set level=%s was=%s", name, before)
        self.set_level(name)


_logs: list[Log] = []  # of this process, because handlers belong to the process


def set_up(level: str, handler: logging.Handler | None = None) -> Log:
    """Log everything from *level* on, such as ``info``, to stderr or by *handler*, and keep events.

    If stderr is the journal (JOURNAL_STREAM of systemd.exec(5)) each line begins with its priority, which journald
    removes, and has no time, which journald adds.
    """
    output = handler
    if output is None:
        output = logging.StreamHandler(sys.stderr)
        output.setFormatter(JournalFormatter() if is_journal(sys.stderr, os.environ) else TerminalFormatter())
    log = Log(logging.getLogger(), output, Events())
    logging.basicConfig(handlers=[output, log.events])
    log.set_level(level)
    _logs[:] = [log]
    return log


def to_syslog(name: str, path: str = "/dev/log") -> logging.Handler:
    """Return a handler that logs to the system's log as the program *name*, or nowhere if there is none."""
    if not os.path.exists(path):
        return logging.NullHandler()
    output = SysLogHandler(path, SysLogHandler.LOG_DAEMON)
    output.ident = f"{name}[{os.getpid()}]: "
    output.append_nul = False
    output.setFormatter(PlainFormatter())
    return output


def current() -> Log:
    """Return the log that set_up() made; an empty one if it was not called."""
    return _logs[0] if _logs else Log(logging.Logger("nobody"), logging.NullHandler(), Events())


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether *stream* is the one that systemd says leads to the journal."""
    told = environment.get("JOURNAL_STREAM")
    if not told:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor, or a closed one
        return False
    return told == f"{status.st_dev}:{status.st_ino}"


class _PrintableFormatter(logging.Formatter):
    """Shows foreign text in a record as printable characters on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return *record* without its traceback."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        """Return a traceback, on several lines."""
        return printable(super().formatException(ei), keeps_lines=True)


class PlainFormatter(_PrintableFormatter):
    """Only the message, on one line: the receiver has the time and the priority."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        return " ".join(super().format(record).splitlines())


class TerminalFormatter(_PrintableFormatter):
    """``2026-01-31T12:00:00+01:00 INFO ready ...``: the local time with its zone."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802  logging's signature
        """Return the time of *record*."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")


class JournalFormatter(_PrintableFormatter):
    """``<6>ready ...``, with the priority before each line of a traceback, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as lines for the journal."""
        priority = PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])
