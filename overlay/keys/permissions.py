"""Who else can read a node's keys, or write the file that decides who is in the overlay."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

# Specification (linux/namei.h)
MOST_LINKS = 40  # MAXSYMLINKS

# Ours
DECIDES = "whoever can change it decides who is in the overlay"  # about a peers file


def describe_readers(path: Path, mode: int) -> list[Finding]:
    """Return the finding if others than its owner can read or write the key in *path*, whose mode is *mode*."""
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [Finding("file", f"{path} can be read by others", f"run `chmod 600 {_quoted(path)}`")]
    return []


def describe_readers_of(paths: Iterable[Path]) -> list[Finding]:
    """Return these findings for each existing key file of *paths*."""
    found = []
    for path in paths:
        try:
            found += describe_readers(path, os.stat(path).st_mode)
        except (OSError, ValueError):  # the reader reports it
            continue
    return found


def describe_writers_of(paths: Iterable[Path]) -> list[Finding]:
    """Return the findings of describe_writers() for each of *paths*."""
    return [finding for path in paths for finding in describe_writers(path)]


def describe_writers(path: Path, decides: str = DECIDES) -> list[Finding]:
    """Return findings on *path*, and on each directory on the way to it, that others can change.

    *decides* is what they could decide.  If *path* or a directory is a link, its target counts, too.

    Others are all except root, the user of this process, and the group of root.  In a sticky directory, such as /tmp,
    only the owner of a file can remove or rename it.
    """
    found = []
    real, others = _way_to(path)
    for each in (real, *others):
        try:
            status = os.lstat(each)
        except (OSError, ValueError):  # the reader reports it
            continue
        if status.st_uid not in {0, os.geteuid()}:
            problem = f"{each} belongs to user {status.st_uid}, and {decides}"
            found.append(Finding("file", problem, f"run `chown root {_quoted(each)}`"))
        if stat.S_ISLNK(status.st_mode):  # its mode has no meaning
            continue
        mode = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != 0 else 0)
        is_shared = each is not real and bool(status.st_mode & stat.S_ISVTX)
        if status.st_mode & mode and not is_shared:
            problem = f"{each} can be written by others, and {decides}"
            found.append(Finding("file", problem, f"run `chmod go-w {_quoted(each)}`"))
    return found


def _way_to(path: Path) -> tuple[Path, list[Path]]:
    """Return the target of *path*, and all directories and links on the way to it, the last first."""
    at, rest, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    met = {at: None}
    while rest:
        part = rest.pop()
        if part == "..":
            at = at.parent
            continue
        each = at / part
        met[each] = None
        try:
            target = Path(os.readlink(each))
        except (OSError, ValueError):  # it is not a link, or does not exist
            at = each
            continue
        links += 1
        if links > MOST_LINKS:
            break
        if target.is_absolute():
            at = Path("/")
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    met.pop(at, None)
    return at, list(reversed(met))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
