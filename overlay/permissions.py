"""Who else can read a node's keys, or write the file that says who is in the overlay."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def describe_readers(path: Path, mode: int) -> list[str]:
    """Return a sentence if others than its owner can read or write the key in *path*, whose mode is *mode*."""
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [f"{path} can be read by others: run `chmod 600 {path}`"]
    return []


def describe_readers_of(paths: Iterable[Path]) -> list[str]:
    """Return such a sentence for each key file of *paths* that is there."""
    sentences = []
    for path in paths:
        try:
            sentences += describe_readers(path, os.stat(path).st_mode)
        except (OSError, ValueError):  # who reads it says so
            continue
    return sentences


def describe_writers(path: Path) -> list[str]:
    """Return a sentence for the peers file *path*, and for each directory on the way to it, that others can change.

    Others are all but root and the user of this process, and the group of root.  Where a directory is sticky, as /tmp
    is, what lies in it can be removed or renamed by its owner alone.
    """
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):
        return []
    sentences = []
    for each in (real, *real.parents):
        try:
            status = os.stat(each)
        except OSError:
            continue
        decides = "who can change it decides who is in the overlay"
        if status.st_uid not in {0, os.geteuid()}:
            sentences.append(
                f"{each} belongs to user {status.st_uid}, and {decides}: run `chown root {each}`"
            )
        mode = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != 0 else 0)
        is_shared = each is not real and bool(status.st_mode & stat.S_ISVTX)
        if status.st_mode & mode and not is_shared:
            sentences.append(f"{each} can be written by others, and {decides}: run `chmod go-w {each}`")
    return sentences
