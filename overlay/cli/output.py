"""Results and warnings as text: tables, amounts, ages."""

from __future__ import annotations

import contextlib
import difflib
import errno
import itertools
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.exits import Failure
from overlay.cli.schema import note_told
from overlay.durations import format_duration
from overlay.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Ours
SHOWN_NAMES = 10  # of the names that a sentence lists
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def show(text: str, prefix: str = "", paint: Callable[[str], str] = str) -> None:
    """Print a result to stdout in printable characters; *prefix* and what *paint* adds are printed unchanged.

    Raises Failure if it cannot be written; click handles a reader that is gone.
    """
    try:
        click.echo(prefix + paint(printable(text, keeps_lines=True)))
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise Failure(f"the result cannot be written: {error.strerror}") from error


def show_secret(text: str) -> None:
    """Print a result with a secret; warn if it goes to a file that others can read."""
    show(text)
    with contextlib.suppress(OSError):  # stdout is not a descriptor
        mode = os.fstat(sys.stdout.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
            warn(
                "others can read the file that this was written to: `chmod 600` it, or run `umask 077` first"
            )


def show_json(value: object, *, compact: bool = False) -> None:
    """Print *value* as JSON to stdout; on one line if *compact*."""
    show(json.dumps(value, separators=(",", ":")) if compact else json.dumps(value, indent=2))
    note_told()


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    click.echo(f"Warning: {printable(sentence)}", err=True)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return *rows* under *header* in columns, left-aligned except for those in *right*."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    flush_right = set(right)

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if index in flush_right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, itertools.chain([header], rows)))


def format_bytes(size: float) -> str:
    """Return *size* with up to three digits: ``812 B``, ``1.21 KiB``, ``23.4 MiB``."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    if unit == 0:
        return f"{size:.0f} B"
    decimals = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{decimals}f} {UNITS[unit]}"


def format_age(seconds: float | None) -> str:
    """Return an age: ``12 s ago``, or ``never`` for None."""
    return "never" if seconds is None else f"{format_duration(seconds)} ago"


def format_some(items: Sequence[Any], most: int) -> str:
    """Return the first *most* items, and the number of the others: ``10.244.1.0/24, 10.244.2.0/24 +3``."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} +{len(items) - most}"


def suggest(name: str, known: Sequence[str]) -> str:
    """Return the second half of a sentence that refuses *name*: similar names, or all peers."""
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not known:
        return "there are no others"
    if len(known) == 1:
        return f"the only peer is {known[0]}"
    more = f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
    return f"the peers are {', '.join(known[:SHOWN_NAMES])}{more}"
