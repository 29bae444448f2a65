"""Files that an operator names, read so that none of them can hold this process up or fill its memory.

A named pipe would wait for its writer, a device has no end, and a file may be larger than anything that was meant.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Ours
CHUNK = 1024 * 1024  # bytes
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
FAULTS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN}


class UnfitFileError(Exception):
    """The file is not a regular one of reasonable size.  The text ends a sentence: ``is a named pipe, ...``."""


def read_regular(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """Return the bytes of the regular file *path*, at most *most*, and its status.

    Raises UnfitFileError for anything else and for more, IsADirectoryError, other OSErrors, and ValueError for a path
    with a null character.  Only its file system can make this wait.
    """
    _check(os.stat(path), most)  # first: to open a device may do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check(status, most)
        data = bytearray()
        while chunk := os.read(descriptor, min(CHUNK, most + 1 - len(data))):
            data += chunk
            if len(data) > most:
                raise UnfitFileError(_too_large(most))
        return bytes(data), status
    finally:
        os.close(descriptor)


def passing(error: OSError) -> str | None:
    """Return the remedy for an error that says nothing about the file, which may be read later; None for another."""
    if error.errno in SHORTAGES:
        return "raise the limit of what ran short, or end programs that use it"
    return "see what is wrong with its file system" if error.errno in FAULTS else None


def path_below(directory: Path | None, name: str) -> Path:
    """Return the path *name*, below *directory* if it is relative.

    Raises ValueError for a relative name without a directory; its message continues after *name*.
    """
    if directory is not None:
        return directory / name
    if not name.startswith("/"):
        raise ValueError("and these peers come from no directory; write the path from the root")
    return Path(name)


def _check(status: os.stat_result, most: int) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError
    if kind != stat.S_IFREG:
        raise UnfitFileError(f"is {KINDS.get(kind, 'of an unknown kind')}, where a regular file is needed")
    if status.st_size > most:
        raise UnfitFileError(_too_large(most))


def _too_large(most: int) -> str:
    return f"has more than {most} bytes, which is more than any such file needs"
