"""Who else can read a node's keys, or write the file that says who is in the overlay."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Ours
DECIDES = "who can change it decides who is in the overlay"  # of a peers file


def describe_readers(path: Path, mode: int) -> list[Finding]:
    """Return what is wrong if others than its owner can read or write the key in *path*, whose mode is *mode*."""
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [Finding("file", f"{path} can be read by others", f"run `chmod 600 {_quoted(path)}`")]
    return []


def describe_readers_of(paths: Iterable[Path]) -> list[Finding]:
    """Return the same for each key file of *paths* that is there."""
    found = []
    for path in paths:
        try:
            found += describe_readers(path, os.stat(path).st_mode)
        except (OSError, ValueError):  # who reads it says so
            continue
    return found


def describe_writers_of(paths: Iterable[Path]) -> list[Finding]:
    """Return what describe_writers() does for each of *paths*."""
    return [finding for path in paths for finding in describe_writers(path)]


def describe_writers(path: Path, decides: str = DECIDES) -> list[Finding]:
    """Return what is wrong with *path*, and with each directory on the way to it, where others can change it.

    *decides* is what they would decide.

    Others are all but root and the user of this process, and the group of root.  Where a directory is sticky, as /tmp
    is, what lies in it can be removed or renamed by its owner alone.
    """
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):
        return []
    found = []
    for each in (real, *real.parents):
        try:
            status = os.stat(each)
        except OSError:
            continue
        if status.st_uid not in {0, os.geteuid()}:
            problem = f"{each} belongs to user {status.st_uid}, and {decides}"
            found.append(Finding("file", problem, f"run `chown root {_quoted(each)}`"))
        mode = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != 0 else 0)
        is_shared = each is not real and bool(status.st_mode & stat.S_ISVTX)
        if status.st_mode & mode and not is_shared:
            problem = f"{each} can be written by others, and {decides}"
            found.append(Finding("file", problem, f"run `chmod go-w {_quoted(each)}`"))
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
