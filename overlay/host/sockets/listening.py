"""Sockets that listen for clients: at an address and a TCP port, or at a path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice, control
from overlay.host.interfaces import sockaddr_of
from overlay.host.process.privileges import Capability
from peers.listening import UnixPlace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers.listening import Listening, TcpPlace

# Ours
BACKLOG = 64
PRIVILEGED = (
    1024  # ports below it need a capability, unless net.ipv4.ip_unprivileged_port_start says otherwise
)


@contextlib.contextmanager
def listening(place: Listening, mode: int = 0o600) -> Iterator[socket.socket]:
    """Listen at *place* inside the block, without blocking; a unix socket has *mode*, and is removed at the end.

    A unix socket that a killed process left is replaced.  Raises HostError if another process has *place*, or it is not
    on this host.
    """
    if isinstance(place, UnixPlace):
        with at_path(place.path, mode) as listener:
            yield listener
    else:
        with _at_port(place) as listener:
            yield listener


def _at_port(place: TcpPlace) -> socket.socket:
    family = socket.AF_INET6 if place.address.version == 6 else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _describe(place, error) from error
    try:
        # Closing connections do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(sockaddr_of(place.address, place.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _describe(place, error) from error
    return listener


def _describe(place: TcpPlace, error: OSError) -> HostError:
    match error.errno:
        case errno.EADDRINUSE:
            return HostError(
                f"{place} is taken by another program: end that (`ss -ltnp` shows it), or choose another port"
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | errno.ENODEV:
            return HostError(
                f"{place} is not an address of this host: choose one that `ip address` shows, or 127.0.0.1"
            )
        case errno.EACCES if place.port < PRIVILEGED:
            return HostError(
                f"{place} has a port below {PRIVILEGED}: {advice.gain(Capability.NET_BIND_SERVICE)}, "
                "or choose another port"
            )
        case _:
            return HostError(f"cannot listen at {place}: {advice.with_reason(error)}")


@contextlib.contextmanager
def at_path(path: str, mode: int, other: str = "path") -> Iterator[socket.socket]:
    """Listen at *path* as listening() does.  If it is taken, the error advises choosing another *other*."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with listener:
        try:
            _remove_dead(path, other)
            os.fchmod(
                listener.fileno(), 0o600
            )  # bind() gives the file this mode, so it never has a wider one
            listener.bind(path)
            os.chmod(path, mode)
            made = os.lstat(path).st_ino
            listener.listen(BACKLOG)
        except OSError as error:
            raise HostError(
                f"{path} could not be made ({error.strerror or error}): {advice.after(error)}"
            ) from error
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ino == made:  # not that of a successor
                    os.unlink(path)


def _remove_dead(path: str, other: str) -> None:
    """Remove the unix socket at *path*, at which no process listens.  Raises HostError for anything else there, and
    OSError.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(f"{path} is in the way and is not a socket: remove it, or choose another {other}")
    if control.is_answered(Path(path)):
        raise HostError(
            f"{path} is taken by another process, which answers there: end that, or choose another {other}"
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
