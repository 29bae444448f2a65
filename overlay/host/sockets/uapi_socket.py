"""Where `wg` finds the device of an interface: a socket in a directory that all implementations of WireGuard share.

The socket is named after the interface, so `wg` cannot distinguish two interfaces of one name in two network namespaces
that share the directory.  As with wireguard-go, the first has the socket; the next gets an error that names its holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification: https://www.wireguard.com/xplatform/
DIRECTORY = Path("/var/run/wireguard")

# Ours
BACKLOG = 128
CREDENTIALS = struct.Struct("=iII")  # struct ucred of unix(7): process, user, group


@dataclass(frozen=True, slots=True)
class UapiSocket:
    """The listening end."""

    path: Path
    socket: socket.socket  # non-blocking
    inode: int

    def is_there(self) -> bool:
        """Return whether `wg` still finds it: somebody may have removed or replaced it."""
        try:
            return self.path.stat(follow_symlinks=False).st_ino == self.inode
        except OSError:
            return False

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still there."""
        if self.is_there():
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.socket.close()


def listen(interface: str, directory: Path) -> UapiSocket:
    """Listen on the socket where `wg` looks for *interface*, mode 0600.  What a killed process left there is replaced.

    Raises HostError if a running process answers there, or the directory cannot be made, or others can write to it.
    """
    path = directory / f"{interface}.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with _held(directory):
            holder = _holder(path)
            if holder is not None:
                raise HostError(
                    f"{path} is answered by another process{holder}: `wg` can tell interfaces of one name apart only "
                    "in mount namespaces with a /run of their own; choose another name, or stop that process"
                ) from OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            path.unlink(missing_ok=True)
            os.fchmod(listener.fileno(), 0o600)  # bind() gives the file this mode, so it never has another
            listener.bind(str(path))
            listener.listen(BACKLOG)
            return UapiSocket(path, listener, path.stat(follow_symlinks=False).st_ino)
    except HostError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise HostError(
            f"{path} could not be created: {error.strerror or error}; {advice.after(error)}"
        ) from error


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other processes of this user from replacing a socket in *directory*.  Raises OSError, and HostError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostError(
                f"{directory} belongs to another user or can be written by others: correct its owner and mode"
            ) from PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str | None:
    """Return which process answers at *path*, as the end of a sentence; None if none does."""
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as client:
        try:
            client.connect(str(path))
        except BlockingIOError:  # many ask at once
            return ""
        except OSError:
            return None
        process, _, _ = CREDENTIALS.unpack(
            client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        return f" ({process})" if process else ""
