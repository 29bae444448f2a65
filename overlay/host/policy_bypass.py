"""Traffic that bypasses the policy routes although it has no mark: name look-ups, and the agent's own connections.

Nothing can go through the tunnels before names are resolved, or before the store of the peers is reached.

The C library opens the sockets of a look-up, so they cannot be given our mark.  The kernel takes the owner of a socket
from the file system user id of the thread that makes it, which is a property of the thread (setfsuid(2)), and a rule
sends that user's traffic past the policy routes (overlay/host/netlink).  Everything in resolv.conf and nsswitch.conf
therefore still applies. Requests that a daemon makes on our behalf are not affected: systemd-resolved reaches the name
servers of a link through that link, whatever the routes say; nscd does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import encodings.idna  # noqa: F401  the user of a look-up may not be able to read where it is
import functools
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setfsuid.argtypes = [ctypes.c_uint]


def as_owner(uid: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of *function*; sockets that it opens belong to *uid*, or without the privilege to this user.

    Only the calling thread is affected; meanwhile it has that user's rights to files.
    """
    before = _libc.setfsuid(uid)
    try:
        return function(*arguments)
    finally:
        _libc.setfsuid(before)


class Passing:
    """Opens TCP sockets that bypass the policy routes; take() sets the user that they belong to."""

    def __init__(self) -> None:
        self._uid: int | None = None
        self._opened: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def take(self, uid: int) -> None:
        """Open sockets as *uid* from now on, and give it the open ones as far as the privilege allows."""
        self._uid = uid
        for each in self._opened:
            with contextlib.suppress(OSError):  # it was closed
                os.fchown(each.fileno(), uid, -1)

    def open_socket(self, family: int) -> socket.socket:
        """Return a new socket.  Raises OSError."""
        make = functools.partial(socket.socket, family, socket.SOCK_STREAM)
        opened: socket.socket = make() if self._uid is None else as_owner(self._uid, make)
        self._opened.add(opened)
        return opened


def getaddrinfo(uid: int, host: bytes | str, port: bytes | str | int | None, *hints: int) -> list[Any]:
    """Return the result of socket.getaddrinfo(), obtained through sockets of *uid*."""
    found: list[Any] = as_owner(uid, socket.getaddrinfo, host, port, *hints)
    return found
