"""The interface through which checks connect to the server under test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio


class NotAskedError(Exception):
    """The node lacks something that it needs to ask the server; the text names it.

    It says nothing about the server.
    """


class Dialer(Protocol):
    """Opens sockets whose packets to the virtual address reach the server under test, and no other.

    *address* is the virtual address as text, *port* that of the check.  The names of the service, the server and its
    peer are passed to scripts.
    """

    address: str
    port: int
    service: str
    server: str
    peer: str

    async def knock(self) -> None:
        """Return once the server accepts a TCP connection, which is ended at once.  Raises OSError, NotAskedError."""

    async def connect(self) -> trio.SocketStream:
        """Return a TCP connection to the server.  Raises OSError, NotAskedError."""

    async def associate(self) -> trio.socket.SocketType:
        """Return a UDP socket that is connected to the server.  Raises OSError, NotAskedError."""

    async def echo(self) -> tuple[trio.socket.SocketType, int]:
        """Return a raw ICMP socket that is connected to the server, and the identifier of echoes that reach it.

        Raises OSError, NotAskedError.
        """


def why(error: OSError) -> str:
    """Return the system's text for *error*, without what a library has added to it."""
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
