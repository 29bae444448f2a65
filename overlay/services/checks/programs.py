"""Why a program of the operator cannot be started: a hook, a check, or a command in the peers file.

For a missing interpreter the kernel reports only that something is missing, and for a directory that may not be entered
only that permission is denied.  This module names the file, and the command that corrects it.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Specification
ACL = "system.posix_acl_access"  # xattr(7)

# Ours
FIRST_LINE = 256  # bytes of it that the kernel reads (BINPRM_BUF_SIZE)

Identity: TypeAlias = "tuple[int | None, int | None]"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a program cannot be started, as the end of a sentence about it, and what to do."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def find_obstacle(path: Path, identity: Identity = (None, None)) -> Obstacle | None:
    """Return what keeps the user and group of *identity* from starting *path*; None if nothing is found.

    None for a user and group means those of this process, which may not see everything.  Blocks.
    """
    try:
        return _find(path, identity)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return Obstacle("it is a link to a file that is missing", "install that, or correct the link")
        return Obstacle("it is missing", "install it, or correct its path")
    except (OSError, ValueError):
        return None


def describe(error: OSError, path: Path, identity: Identity = (None, None)) -> str:
    """Return why *identity* could not start *path*, which failed with *error*, and what to do.  Blocks."""
    found = find_obstacle(path, identity)
    if found is None and error.errno == errno.ENOEXEC:
        found = Obstacle("it is not a program", "write the interpreter into its first line, as in #!/bin/sh")
    if found is None and error.errno == errno.ENOENT:
        found = Obstacle("the loader that it names is missing", "install the program for this system")
    return str(found) if found is not None else error.strerror or str(error)


def describe_end(status: int) -> str:
    """Return how a program with exit status *status*, negative for a signal, ended: as the end of a sentence."""
    if status >= 0:
        return f"ended with {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # one of the real-time signals, most of which have no name
        return f"was ended by signal {-status}"


def _find(path: Path, identity: Identity) -> Obstacle | None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return Obstacle("it is not a file", "write the path of a program")
    closed = next(
        (each for each in reversed(path.resolve().parents) if not _may(each, identity, os.X_OK)), None
    )
    if closed is not None:
        remedy = f"put it elsewhere, or run `chmod o+x {shlex.quote(str(closed))}`"
        return Obstacle(f"{_who(identity)} may not enter {closed}", remedy)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return Obstacle("it is on a file system that is mounted with noexec", "put it elsewhere")
    change = f"run `chmod 755 {shlex.quote(str(path))}`"
    if not _may(path, identity, os.X_OK):
        return Obstacle(f"{_who(identity)} may not run it", change)
    return _find_in_first_line(path, identity, change)


def _find_in_first_line(path: Path, identity: Identity, change: str) -> Obstacle | None:
    with path.open("rb") as file:
        first = file.readline(FIRST_LINE)
    words = first.removeprefix(b"#!").strip(b" \t\r\n").split()
    if not first.startswith(b"#!") or not words:
        return None
    if first.endswith(b"\r\n"):
        return Obstacle("its lines end with CR LF", f"run `dos2unix {shlex.quote(str(path))}`")
    if not _may(path, identity, os.R_OK):
        return Obstacle(f"{_who(identity)} may not read it, as its interpreter has to", change)
    interpreter = os.fsdecode(words[0])
    named = f"its first line names the interpreter {interpreter}"
    if not os.path.exists(interpreter):
        return Obstacle(f"{named}, which is missing", "install it, or name another")
    if not _may(Path(interpreter), identity, os.X_OK):
        return Obstacle(f"{named}, which {_who(identity)} may not run", "name another")
    return None


def _may(path: Path, identity: Identity, access: int) -> bool:
    """Return whether *identity* has *access* to *path* by its mode; an access control list may say more."""
    user, group = identity
    if user is None:
        return os.access(path, access)
    status = path.stat()
    shift = 6 if status.st_uid == user else 3 if status.st_gid == group else 0
    return bool(status.st_mode >> shift & access) or ACL in os.listxattr(path)


def _who(identity: Identity) -> str:
    user = os.geteuid() if identity[0] is None else identity[0]
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"
