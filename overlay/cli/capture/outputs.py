"""Outputs of a capture: a file in the pcapng format, a pipe into another program, or lines of text."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Protocol

from overlay.capturing import pcapng
from overlay.capturing.entry import CapturePoint, describe
from overlay.capturing.summary import summarize, summarize_frame
from overlay.cli.capture.ending import write_some
from overlay.cli.exits import Failure, Misuse
from overlay.cli.output import show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overlay.capturing.entry import Entry
    from overlay.cli.capture.ending import Ending
    from overlay.wire.ip import Buffer

# Ours
BUFFER = 1024 * 1024  # bytes written at once; more than any block
FULL = {errno.ENOSPC, errno.EDQUOT}
CLOSED = -1
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY


class ReaderGoneError(Exception):
    """The output no longer has a reader: the capture is over, which is not a fault."""


class Output(Protocol):
    """Takes captured packets; *written* is how many have been written completely."""

    @property
    def written(self) -> int: ...

    def take(self, entry: Entry) -> None:
        """Write a packet.  Raises ReaderGoneError, or Failure if it cannot be written."""

    def flush(self) -> None:
        """Write out everything that was taken.  Raises the errors of take()."""

    def end(self, counts: dict[CapturePoint, tuple[int, int]]) -> None:
        """Write how many packets arrived at each place, and how many were missed.  Raises the errors of take()."""

    def close(self) -> None:
        """Close the file, whatever was written."""


class PcapngOutput:
    """A file, or standard output, in the pcapng format.  Many packets are collected and written at once."""

    def __init__(self, descriptor: int, name: str, ending: Ending) -> None:
        """*name* is the name in errors; the descriptor is closed with this.  A write that waits ends with *ending*."""
        self._descriptor, self._name, self._ending = descriptor, name, ending
        self._numbers: dict[CapturePoint, int] = {}
        self._buffer = memoryview(bytearray(BUFFER))
        self._size = 0  # of the collected packets
        self._ends: list[int] = []  # of each packet in it
        self._progress: list[int] = []  # bytes of it that have been written, by each write
        self._before = 0  # packets written before the collected ones

    @property
    def written(self) -> int:
        """Return how many packets have been written completely."""
        return self._before + bisect.bisect_right(self._ends, sum(self._progress))

    def begin(
        self,
        application: str,
        places: Sequence[CapturePoint],
        interface: str,
        snaplen: int,
        expression: str,
        *,
        is_tap: bool,
    ) -> None:
        """Make flush() write the headers first, so that it notices a reader that is gone, or a full disk."""
        self._numbers = {place: number for number, place in enumerate(places)}
        described = (describe(place, interface, snaplen, expression, is_tap=is_tap) for place in places)
        blocks = [pcapng.section(application), *map(pcapng.interface, described)]
        self._collect(*blocks)

    def take(self, entry: Entry) -> None:
        number, flags = self._numbers[entry.place], entry.place.flags
        self._collect(
            *pcapng.packet(number, entry.wall_ns, entry.data, entry.length, entry.comment, flags=flags)
        )
        self._ends.append(self._size)

    def flush(self) -> None:
        try:
            while (done := sum(self._progress)) < self._size:
                with self._ending.waits():
                    write_some(self._descriptor, self._buffer[done : self._size], self._progress)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise ReaderGoneError from error
            raise self._failure(error) from error
        self._before += len(self._ends)
        self._ends, self._progress, self._size = [], [], 0

    def end(self, counts: dict[CapturePoint, tuple[int, int]]) -> None:
        now = time.time_ns()
        for place, number in self._numbers.items():
            if place in counts:
                self._collect(pcapng.statistics(number, now, *counts[place]))
        self.flush()
        descriptor, self._descriptor = self._descriptor, CLOSED
        try:
            os.close(descriptor)
        except OSError as error:  # for example from a network file system, which only writes on close
            raise self._failure(error) from error

    def close(self) -> None:
        if self._descriptor != CLOSED:
            with contextlib.suppress(OSError):  # the write error was reported already
                os.close(self._descriptor)

    def _failure(self, error: OSError) -> Failure:
        remedy = "free space there, or name" if error.errno in FULL else "name"
        return Failure(
            f"the capture cannot be written to {self._name}: {error.strerror}; {remedy} another file after -w"
        )

    def _collect(self, *parts: Buffer) -> None:
        """Append a block to the collected ones, given in parts that are copied once each; make room for it first."""
        if self._size + sum(map(len, parts)) > BUFFER:
            self.flush()
        at = self._size
        for part in parts:
            self._buffer[at : at + len(part)] = part
            at += len(part)
        self._size = at


class LinesOutput:
    """A line for each packet on standard output."""

    def __init__(self, ending: Ending, places: Sequence[CapturePoint], *, is_tap: bool) -> None:
        """*places* are where packets come from.  A write that waits ends with *ending*."""
        self._ending, self._is_tap = ending, is_tap
        self._width = max(len(place.value) for place in places)
        self.written = 0

    def take(self, entry: Entry) -> None:
        is_frame = self._is_tap and entry.place in {CapturePoint.OUT, CapturePoint.IN, CapturePoint.DROPPED}
        about = (
            (summarize_frame if is_frame else summarize)(entry.data, entry.length) if entry.length else "-"
        )
        notes = "".join(f"  {each}" for each in entry.notes)
        moment = time.strftime("%H:%M:%S", time.localtime(entry.wall_ns // 1_000_000_000))
        micros = entry.wall_ns // 1000 % 1_000_000
        try:
            with self._ending.waits():
                show(
                    f"{moment}.{micros:06d} {entry.place.value:<{self._width}} {entry.peer or '-'}  {about}{notes}"
                )
        except OSError as error:
            raise ReaderGoneError from error
        self.written += 1

    def flush(self) -> None:
        """Do nothing: a line is shown at once."""

    def end(self, counts: dict[CapturePoint, tuple[int, int]]) -> None:
        """Do nothing: the command prints the number of packets."""

    def close(self) -> None:
        """Do nothing."""


def open_file(path: Path, ending: Ending) -> int:
    """Open *path* for a capture, readable for its owner alone if it is new.  Raises Failure, and KeyboardInterrupt as
    waits() does.

    In a directory that others may write to, it must be a file or a pipe of this user's: another user may have put a
    link there, so that a file is overwritten, or a file or a pipe, to read the capture.  For a pipe, this waits until
    it has a reader.
    """
    is_shared = _is_shared(path.parent)
    try:
        if is_shared:
            with contextlib.suppress(FileNotFoundError):
                _refuse_foreign(path, path.lstat())  # before waiting for the reader of a pipe
        with ending.waits():
            descriptor = os.open(path, FLAGS | (os.O_NOFOLLOW if is_shared else 0), 0o600)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            about = os.fstat(descriptor)
            if is_shared:
                _refuse_foreign(path, about)
            if stat.S_ISREG(about.st_mode):
                os.ftruncate(descriptor, 0)
            undo.pop_all()
    except OSError as error:
        reason = error.strerror
        if error.errno == errno.ELOOP and is_shared:
            reason = f"it is a symbolic link, and everyone can write to {path.parent}"
        raise Failure(f"{path} cannot be written: {reason}; name another file after -w") from error
    return descriptor


def _refuse_foreign(path: Path, about: os.stat_result) -> None:
    if stat.S_ISLNK(about.st_mode):
        return  # opening it says so
    if about.st_uid != os.geteuid() or about.st_nlink > 1:
        raise Failure(
            f"{path} belongs to another user, or has another name, and everyone can write to {path.parent}; name "
            f"another file after -w"
        )


def _is_shared(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:  # opening the file says why
        return False


def open_stdout(*, is_terminal: bool) -> int:
    """Return a descriptor of standard output for a capture.  Raises Misuse if it is a terminal."""
    if is_terminal:
        raise Misuse(
            "a capture is not for a terminal: name a file after -w, or pipe it into a program, as in "
            "`overlay capture -w - | wireshark -k -i -`"
        )
    return os.dup(1)
