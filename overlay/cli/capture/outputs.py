"""Where a capture goes: a file in the pcapng format, a pipe into another program, or lines for people."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, BinaryIO, Protocol

from overlay.capturing import pcapng
from overlay.capturing.entry import Place, describe
from overlay.capturing.summary import summarize, summarize_frame
from overlay.cli.exits import Failure, Misuse
from overlay.cli.output import show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overlay.capturing.entry import Entry

# Ours
BUFFER = 1024 * 1024  # bytes that are written at once
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY


class ReaderGoneError(Exception):
    """Nobody reads any more: the capture is over, and that is no fault."""


class StalledError(TimeoutError):
    """A reader has not read for longer than it is waited for."""


class Output(Protocol):
    """Takes what was captured."""

    def take(self, entry: Entry) -> None:
        """Write a packet.  Raises ReaderGoneError, or Failure where it cannot be written."""

    def flush(self) -> None:
        """Have all that was taken be where it goes.  Raises as take()."""

    def end(self, counts: dict[Place, tuple[int, int]]) -> None:
        """Write how many packets came to each place, and how many of them were missed.  Raises as take()."""

    def close(self) -> None:
        """Let go of the file, whatever was written."""


class PcapngOutput:
    """A file, or standard output, in the pcapng format."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """*name* is what errors call it."""
        self._file, self._name = file, name
        self._numbers: dict[Place, int] = {}

    def begin(
        self,
        application: str,
        places: Sequence[Place],
        interface: str,
        snaplen: int,
        expression: str,
        *,
        is_tap: bool,
    ) -> None:
        """Write the headers.  Raises as take()."""
        self._numbers = {place: number for number, place in enumerate(places)}
        described = (describe(place, interface, snaplen, expression, is_tap=is_tap) for place in places)
        blocks = [pcapng.section(application), *map(pcapng.interface, described)]
        self._write(b"".join(blocks))
        self.flush()

    def take(self, entry: Entry) -> None:
        number, flags = self._numbers[entry.place], entry.place.flags
        self._write(
            pcapng.packet(number, entry.wall_ns, entry.data, entry.length, entry.comment, flags=flags)
        )

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def end(self, counts: dict[Place, tuple[int, int]]) -> None:
        now = time.time_ns()
        for place, number in self._numbers.items():
            if place in counts:
                self._write(pcapng.statistics(number, now, *counts[place]))
        self.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be written was told of already
            self._file.close()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if error.errno == errno.EPIPE or isinstance(error, StalledError):
            raise ReaderGoneError from error
        raise Failure(f"the capture cannot be written to {self._name}: {error.strerror}") from error


class LinesOutput:
    """A line for each packet on standard output."""

    def __init__(self, *, is_tap: bool) -> None:
        self._is_tap = is_tap

    def take(self, entry: Entry) -> None:
        is_frame = self._is_tap and entry.place in {Place.OUT, Place.IN, Place.DROPPED}
        about = (
            (summarize_frame if is_frame else summarize)(entry.data, entry.length) if entry.length else "-"
        )
        notes = "".join(f"  {each}" for each in entry.notes)
        moment = time.strftime("%H:%M:%S", time.localtime(entry.wall_ns // 1_000_000_000))
        micros = entry.wall_ns // 1000 % 1_000_000
        try:
            show(f"{moment}.{micros:06d} {entry.place.value:<7} {entry.peer or '-'}  {about}{notes}")
        except OSError as error:
            raise ReaderGoneError from error

    def flush(self) -> None:
        """Do nothing: a line is shown at once."""

    def end(self, counts: dict[Place, tuple[int, int]]) -> None:
        """Do nothing: the command says how many there were."""

    def close(self) -> None:
        """Do nothing."""


def open_file(path: Path) -> BinaryIO:
    """Open *path* for a capture, for its owner alone where it is new.  Raises Failure."""
    try:
        return os.fdopen(os.open(path, FLAGS, 0o600), "wb", BUFFER)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}; name another file after -w") from error


def open_stdout(*, is_terminal: bool) -> BinaryIO:
    """Return standard output for a capture.  Raises Misuse where that is a terminal."""
    if is_terminal:
        raise Misuse(
            "a capture is not for a terminal: name a file after -w, or pipe it into a program, as in "
            "`overlay capture -w - | wireshark -k -i -`"
        )
    return os.fdopen(os.dup(1), "wb", BUFFER)
