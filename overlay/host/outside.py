"""Traffic that bypasses the policy routes although it has no mark: name look-ups, and the agent's own connections.

Nothing goes through the tunnels before names are known, and nothing new is known of them without the store of the
peers.

The C library opens the sockets of a look-up, so they cannot be given our mark.  The kernel takes the owner of a socket
from the file system user id of the thread that makes it, which each thread has for itself (setfsuid(2)), and a rule
sends what is of that user past the policy routes (overlay/host/netlink).  Everything in resolv.conf and nsswitch.conf
therefore still applies. Requests that a daemon makes on our behalf are its own: systemd-resolved sends to the name
servers of a link by that link, whatever the routes say; nscd does not.
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
    """Return what *function* returns, with the sockets that it opens owned by *uid*; without the privilege, by us.

    Only the calling thread is affected, and has the rights of that user to files meanwhile.
    """
    before = _libc.setfsuid(uid)
    try:
        return function(*arguments)
    finally:
        _libc.setfsuid(before)


class Passing:
    """Opens sockets of TCP that go past the policy routes, from when take() has said whose sockets do."""

    def __init__(self) -> None:
        self._uid: int | None = None
        self._opened: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def take(self, uid: int) -> None:
        """Have the sockets of *uid* for it, those that are open among them as far as the privilege goes."""
        self._uid = uid
        for each in self._opened:
            with contextlib.suppress(OSError):  # one that was closed
                os.fchown(each.fileno(), uid, -1)

    def open_socket(self, family: int) -> socket.socket:
        """Return a new socket.  Raises OSError."""
        make = functools.partial(socket.socket, family, socket.SOCK_STREAM)
        opened: socket.socket = make() if self._uid is None else as_owner(self._uid, make)
        self._opened.add(opened)
        return opened


def getaddrinfo(uid: int, host: bytes | str, port: bytes | str | int | None, *hints: int) -> list[Any]:
    """Return what socket.getaddrinfo() does, having asked by sockets of *uid*."""
    found: list[Any] = as_owner(uid, socket.getaddrinfo, host, port, *hints)
    return found
