"""One connection to an HTTP/1.1 server: a request, and its answer whole or as it comes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeAlias

import h11
import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from peers.peer import Endpoint

Opener: TypeAlias = "Callable[[Endpoint], Awaitable[trio.abc.Stream]]"
"""Returns a connected stream; raises OSError."""

OpenSocket: TypeAlias = "Callable[[int], socket.socket]"
"""Returns a socket of TCP for an address family; raises OSError."""

# Specification: RFC 8305 section 8
STAGGER = 0.25  # seconds after which the next address is tried, too

# Ours
CHUNK = 64 * 1024
# A host that lost its power says nothing: after some 30 s without an answer of its kernel the connection is over
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
USER_TIMEOUT_MS = 30_000


class EndedError(Exception):
    """The other end closed the connection, or its answer is not taken; the text continues its name in a sentence."""


class NotHttpError(EndedError):
    """The other end does not speak HTTP; the text says how that shows."""


def _open_socket(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


async def open_tcp(endpoint: Endpoint, open_socket: OpenSocket = _open_socket) -> trio.abc.Stream:
    """Connect to *endpoint* by a socket that *open_socket* opens.  Raises OSError."""
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    stream = trio.SocketStream(await _connect([(each[0], each[4]) for each in found], open_socket))
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in KEEPALIVE:
        stream.setsockopt(socket.IPPROTO_TCP, option, seconds)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    return stream


async def _connect(
    addresses: Sequence[tuple[int, tuple[object, ...]]], open_socket: OpenSocket
) -> trio.socket.SocketType:
    """Return a socket that is connected to the first of *addresses* that answers.  Raises OSError if none does."""
    failures: list[OSError] = []
    connected: list[trio.socket.SocketType] = []
    async with trio.open_nursery() as nursery:

        async def attempt(family: int, sockaddr: tuple[object, ...], has_failed: trio.Event) -> None:
            try:
                opened = trio.socket.from_stdlib_socket(open_socket(family))
                try:
                    await opened.connect(sockaddr)
                except BaseException:
                    opened.close()
                    raise
            except OSError as error:
                failures.append(error)
                has_failed.set()
            else:
                connected.append(opened)
                nursery.cancel_scope.cancel()

        for family, sockaddr in addresses:
            has_failed = trio.Event()
            nursery.start_soon(attempt, family, sockaddr, has_failed)
            with trio.move_on_after(STAGGER):
                await has_failed.wait()
    for other in connected[1:]:
        other.close()
    if not connected:
        raise failures[0]
    return connected[0]


class Connection:
    """A connection to *endpoint*.  Close it, whatever happened."""

    def __init__(self, endpoint: Endpoint, stream: trio.abc.Stream, local: str | None) -> None:
        self.endpoint, self.local = endpoint, local
        """*local* is the address of this host that the other end sees, unless there is a translation on the way."""
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self.is_heard = False
        """Whether the other end has said anything."""

    @classmethod
    async def open(cls, endpoint: Endpoint, context: ssl.SSLContext | None, opener: Opener) -> Connection:
        """Connect, with TLS if there is a *context*.

        Raises OSError, and BrokenResourceError where TLS fails; its cause is the SSLError.
        """
        stream = await opener(endpoint)
        local = None
        if isinstance(stream, trio.SocketStream):
            local = str(stream.socket.getsockname()[0]).partition("%")[0]
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname=endpoint.host, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        return cls(endpoint, stream, local)

    async def post(self, path: str, body: bytes, headers: list[tuple[str, str]]) -> int:
        """Send *body*, and return the status of the answer, of which nothing else was read.

        Raises EndedError and BrokenResourceError.
        """
        request = h11.Request(
            method="POST",
            target=path,
            headers=[
                ("Host", str(self.endpoint)),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                *headers,
            ],
        )
        data = b""
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            data += self._http.send(event) or b""
        await self._stream.send_all(data)
        while True:
            answer = await self._next_event()
            if isinstance(answer, h11.Response):
                return answer.status_code
            if not isinstance(answer, h11.InformationalResponse):
                raise EndedError("closed the connection")

    async def read_some(self) -> bytes:
        """Return the next bytes of the answer; none where it is complete.  Raises EndedError if it is cut off."""
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise EndedError("closed the connection in the middle of an answer")

    async def read_all(self, most: int) -> bytes:
        """Return the rest of the answer.  Raises EndedError if it is cut off, or has more than *most* bytes."""
        data = bytearray()
        while chunk := await self.read_some():
            data += chunk
            if len(data) > most:
                raise EndedError(f"gave an answer of more than {most} bytes")
        return bytes(data)

    def renew(self) -> bool:
        """Make ready for another request, and return whether the connection can take one."""
        try:
            self._http.start_next_cycle()
        except h11.ProtocolError:
            return False
        return True

    async def aclose(self) -> None:
        """Close it at once, without a farewell."""
        await trio.aclose_forcefully(self._stream)

    async def _next_event(self) -> object:
        data = None
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                data = bytes(await self._stream.receive_some(CHUNK))
                self.is_heard = self.is_heard or bool(data)
                self._http.receive_data(data)
            except h11.ProtocolError as error:
                if data == b"":
                    raise EndedError("closed the connection in the middle of an answer") from None
                raise NotHttpError(str(error)) from None
