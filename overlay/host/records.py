"""Small files next to the control socket that record what an agent has done, for the program that runs after it.

A file is trusted only if nobody but its user can have written it, and is replaced in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from overlay.errors import HostError
from overlay.host import advice

# Specification: asm-generic/socket.h
SO_NETNS_COOKIE = 71  # since Linux 5.14: unlike the inode, never used twice until the next boot

# Ours
BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_namespace() -> str:
    """Return a text that distinguishes this network namespace of this boot from all others."""
    try:
        boot = BOOT.read_text().strip()
    except OSError:
        boot = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            number = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        except OSError:
            number = os.stat("/proc/thread-self/ns/net").st_ino
    return f"{boot}/{number}"


def is_of_this_user(status: os.stat_result) -> bool:
    """Return whether only this user may write a file with that *status*."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read(path: Path, size: int) -> bytes | None:
    """Return the first *size* + 1 bytes of the file; None if it does not exist.  Raises HostError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{path} could not be opened ({error.strerror}): {advice.instead(error)}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not is_of_this_user(status):
            raise HostError(
                f"{path} was not written by an agent of this user, so it is not trusted: look at it and remove it"
            ) from PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return os.pread(descriptor, size + 1, 0)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove the file, if it exists.  Raises HostError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{path} could not be removed ({error.strerror}): {advice.after(error)}") from error


def write(path: Path, data: bytes, *, is_durable: bool = False) -> None:
    """Replace the content of the file with *data*, readable only by this user.  Raises HostError, with the file
    unchanged.

    With *is_durable* the file is also complete after a power failure, which may otherwise leave it empty.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        raise HostError(f"{path} could not be written ({error.strerror}): {advice.after(error)}") from error
