"""What a user can do after the kernel refused, as the end of a sentence.  Root is not told to become root."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.host.process.privileges import Capability

SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def gain(capability: Capability) -> str:
    """Return how a user gives this process *capability*."""
    if os.geteuid() != 0:
        return f"run as root with {capability}"
    return f"give the container or service {capability}, which it lacks although it runs as root"


def become_root() -> str:
    """Return how a user runs this process with the rights of root."""
    if os.geteuid() != 0:
        return "run as root"
    return (
        "root was refused, too, so see whether the file system is read-only or a security policy forbids it"
    )


def with_reason(error: OSError) -> str:
    """Return the kernel's reason, and the remedy if something ran short: for calls that name no file."""
    reason = error.strerror or str(error)
    return f"{reason}; {after(error)}" if error.errno in SHORTAGES else reason


def instead(error: OSError) -> str:
    """Return the remedy if one of our own files could not be made or opened: for something else in its place, or for a
    shortage.
    """
    return after(error) if error.errno in SHORTAGES | FULL else "look at it and remove it"


def after(error: OSError) -> str:
    """Return the remedy for a file that could not be made, opened or written, depending on the reason."""
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return become_root()
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "make room on that file system"
        case (
            errno.ENOENT
            | errno.EISDIR
            | errno.ENOTDIR
            | errno.ELOOP
            | errno.EEXIST
            | errno.ENXIO
            | errno.ENODEV
        ):
            return "see what is in its place, or in the place of one of its directories"
        case errno.EMFILE:
            return "raise the limit of open files of this process (ulimit -n, LimitNOFILE= of a service)"
        case errno.EAGAIN:  # of a process that cannot be started
            return "raise the limit of processes (ulimit -u, TasksMax= of a service, pids.max of a container)"
        case errno.ENFILE:
            return "raise fs.file-max, or end the programs that hold so many files"
        case errno.ENOBUFS | errno.ENOMEM:
            return "free memory of this host"
        case None | errno.ENAMETOOLONG:  # Python sets no errno if the name of a socket is too long
            return "choose a shorter path"
        case _:
            return "see what is wrong with that place"
