"""The way to the server under test, as a kind of check sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio


class Way(Protocol):
    """Opens sockets whose packets to the virtual address reach the server under test, and no other.

    *address* is the virtual address as text, *port* that of the check.  The names of the service, the server and its
    peer are told to scripts.
    """

    address: str
    port: int
    service: str
    server: str
    peer: str

    async def connect(self) -> trio.SocketStream:
        """Return a TCP connection to the server.  Raises OSError."""

    async def associate(self) -> trio.socket.SocketType:
        """Return a UDP socket that is connected to the server.  Raises OSError."""

    async def echo(self) -> tuple[trio.socket.SocketType, int]:
        """Return a raw ICMP socket that is connected to the server, and the identifier of echoes that reach it.

        Raises OSError.
        """


def why(error: OSError) -> str:
    """Return what the system says of *error*, without what a library has written around it."""
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
