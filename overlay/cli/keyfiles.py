"""Key files: written completely or not at all, readable by their owner alone, and never over another by accident."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

from overlay.cli.exits import Failure
from overlay.host import advice

if TYPE_CHECKING:
    from pathlib import Path


def write_secret(path: Path, text: str, *, replace: bool = False, like: Path | None = None) -> None:
    """Write *text* to the file *path* with mode 0600; a missing directory is created with 0700.

    With *like* it gets the owner and the group of that file, and the same read permission for the group.

    The text is written to a new file next to it, which then takes the name in one step: there is never a partial file,
    and whatever fails leaves *path* as it was.  Raises FileExistsError if there is a file, unless *replace*; Failure if
    the machine or the user's permissions do not allow it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            f"{path.parent} cannot be created: {error.strerror}; {advice.after(error)}, or name another file"
        ) from error
    draft = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}"
    try:
        try:
            _write_new(draft, text, None if like is None else like.stat())
            if replace:
                refuse_special(path)
                draft.replace(path)
            else:
                path.hardlink_to(
                    draft
                )  # unlike a rename, this refuses a name that is taken, also by a dead link
            _sync_directory(path.parent)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise Failure(
            f"{path} cannot be written: {error.strerror}; {advice.after(error)}, or name another file"
        ) from error


def take_name(path: Path, name: Path) -> None:
    """Rename the file *path* to *name*, in the same directory, replacing the file of that name.  Raises Failure."""
    refuse_special(name)
    try:
        path.replace(name)
        _sync_directory(name.parent)
    except OSError as error:
        raise Failure(f"{path} cannot become {name}: {error.strerror}; {advice.after(error)}") from error


def remove_secret(path: Path) -> None:
    """Remove the file *path*.  Raises Failure."""
    try:
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise Failure(f"{path} cannot be removed: {error.strerror}; {advice.after(error)}") from error


def _write_new(path: Path, text: str, like: os.stat_result | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        mode = 0o600
        if like is not None:
            mode |= like.st_mode & 0o040
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, mode)  # independent of the umask
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def refuse_special(path: Path) -> None:
    """Raise Failure if *path* is not a plain file: replacing /dev/null would break the machine."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Failure(f"{path} is not a regular file and is not replaced: name another")


def _sync_directory(path: Path) -> None:
    """Make the new name survive a power failure, if the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
