"""HTTP/1.1 for programs that ask this node: Docker, Prometheus, a browser. h11 parses and writes it.

A door passes a listener to serve(), and a function that answers one request.  The cost of clients is bounded: their
number, the length of a request and its body, and the time to send one and to read the answer.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl

import h11
import trio

from overlay.doors.accepting import take_each

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

# Ours
HEADER_SIZE = 16 * 1024  # bytes of a request line and its headers
PIECE = 64 * 1024  # bytes that are read at once
CROWDED = 2.0  # seconds that a client has for a body, and to read an answer, while others wait to be accepted
TEXT = "text/plain; charset=utf-8"
REMEDIES = {413: "send a shorter one", 431: "send shorter headers"}  # for malformed requests, by the status
QUOTED = ": b"  # after it, h11 quotes bytes of a request, as Python writes them


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients."""

    connections: int = 32  # at once; others wait to be accepted
    body_size: int = 0  # bytes
    idle: float = 60.0  # seconds until the headers of the first or next request have arrived
    request: float = 10.0  # seconds for a body to arrive
    answer: float = 60.0  # seconds for an answer to be made and read


@dataclass(frozen=True, slots=True)
class Request:
    """One request.  Names of *headers* are in lower case; of several with the same name, the last counts."""

    method: str
    target: str  # with its query, not decoded
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """Return the names and values of the query, decoded, in their order."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.  A *body* in pieces is sent piece by piece, without announcing its length."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Answer: TypeAlias = "Callable[[Request], Awaitable[Reply]]"
Refuse: TypeAlias = "Callable[[int, str], Reply]"
"""Takes a status and a sentence on what is wrong with a malformed request."""


def say(status: int, sentence: str) -> Reply:
    """Return *sentence* as a reply in plain text."""
    return Reply(status, f"{sentence}\n".encode())


def refuse_method(request: Request, *allowed: str) -> Reply | None:
    """Return the refusal of a request whose method is not *allowed*; None if it is."""
    if request.method in allowed:
        return None
    return Reply(
        405,
        f"{request.path} allows {' and '.join(allowed)}\n".encode(),
        headers={"Allow": ", ".join(allowed)},
    )


async def serve(
    listener: trio.SocketListener,
    answer: Answer,
    limits: Limits | None = None,
    refuse: Refuse = say,
    who: str = "requests by HTTP",
) -> None:
    """Answer requests at *listener*, which it closes, until cancelled.

    A HEAD is answered like a GET, without the body.  *answer* is cancelled if its client takes too long.  If all
    connections are in use, the one that has been idle for longest is closed to make room; if none is idle, those that
    wait for their clients get CROWDED seconds.
    """
    door = _Door(answer, limits or Limits(), refuse)
    async with listener:
        await take_each(listener, door.converse, door.limits.connections, who)


class _Door:
    def __init__(self, answer: Answer, limits: Limits, refuse: Refuse) -> None:
        self.limits = limits
        self._answer, self._refuse = answer, refuse
        self._connected = 0
        self._idle: dict[trio.CancelScope, None] = {}  # the one idle for longest first
        self._held: set[trio.CancelScope] = set()  # by clients that are sending a body or reading an answer

    async def converse(self, stream: trio.SocketStream) -> None:
        """Answer one request after the other until the client leaves or its time is up."""
        self._connected += 1
        try:
            await _Conversation(stream, self).run()
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            h11.LocalProtocolError,
        ):
            return
        finally:
            self._connected -= 1

    def idle(self) -> trio.CancelScope:
        """Return the scope to wait for a request in; done() ends it."""
        if self._is_full and self._idle:
            next(iter(self._idle)).cancel()
        elif self._is_full:
            for each in self._held:
                _hurry(each)
        scope = trio.CancelScope(deadline=trio.current_time() + self.limits.idle)
        self._idle[scope] = None
        return scope

    def done(self, scope: trio.CancelScope) -> None:
        """Mark *scope* as busy."""
        self._idle.pop(scope, None)

    @contextlib.contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Wait for a client in the block, for at most *patience* seconds.  Raises TooSlowError."""
        with trio.fail_after(patience) as scope:
            if self._is_full:
                _hurry(scope)
            self._held.add(scope)
            try:
                yield
            finally:
                self._held.discard(scope)

    @property
    def _is_full(self) -> bool:
        return self._connected >= self.limits.connections

    async def answer(self, request: Request) -> Reply:
        """Return the answer to *request*.  Raises TooSlowError if making it takes too long."""
        with trio.fail_after(self.limits.answer):
            return await self._answer(request)

    def refuse(self, status: int, sentence: str) -> Reply:
        """Return the answer to a malformed request."""
        return self._refuse(status, sentence)


class _Conversation:
    def __init__(self, stream: trio.SocketStream, door: _Door) -> None:
        self._stream, self._door = stream, door
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_SIZE)

    async def run(self) -> None:
        """Serve the connection.  Raises BrokenResourceError, TooSlowError or LocalProtocolError if it cannot go on."""
        connection, limits = self._connection, self._door.limits
        while True:
            try:
                head = await self._wait()
                if not isinstance(head, h11.Request):
                    return
                with self._door.held(limits.request):
                    body = await self._read_body()
            except h11.RemoteProtocolError as error:
                with self._door.held(limits.request):
                    await self._refuse(error)
                return
            request = _request_of(head, body)
            reply = await self._door.answer(request)
            with self._door.held(limits.answer):
                await self._send(reply, has_body=request.method != "HEAD")
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _wait(self) -> object:
        """Return the next request, or the event that came instead; None if none came in time."""
        scope = self._door.idle()
        try:
            with scope:
                return await self._next()
        finally:
            self._door.done(scope)
        return None

    async def _next(self) -> object:
        """Return the next event, which may be the end of the connection."""
        while True:
            event = self._connection.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._connection.receive_data(await self._stream.receive_some(PIECE))

    async def _read_body(self) -> bytes:
        """Return the body.  Raises RemoteProtocolError if it is too long."""
        if self._connection.they_are_waiting_for_100_continue:
            data = self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._stream.send_all(data or b"")
        body = bytearray()
        while isinstance(event := await self._next(), h11.Data):
            body += event.data
            if len(body) > self._door.limits.body_size:
                size = self._door.limits.body_size
                raise h11.RemoteProtocolError(f"the body is longer than {size} bytes", error_status_hint=413)
        return bytes(body)

    async def _send(self, reply: Reply, *, has_body: bool = True) -> None:
        headers = [("Content-Type", reply.content_type), *reply.headers.items()]
        body = reply.body
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
        head = self._build(h11.Response(status_code=reply.status, headers=headers))
        if not has_body:
            await self._stream.send_all(head + self._build(h11.EndOfMessage()))
            return
        if isinstance(body, bytes):
            await self._stream.send_all(
                head + self._build(h11.Data(data=body)) + self._build(h11.EndOfMessage())
            )
            return
        await self._stream.send_all(head)
        async with contextlib.aclosing(body):
            async for piece in body:
                await self._stream.send_all(self._build(h11.Data(data=piece)))
        await self._stream.send_all(self._build(h11.EndOfMessage()))

    def _build(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        return self._connection.send(event) or b""

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            what = str(error).partition(QUOTED)[0]
            remedy = REMEDIES.get(error.error_status_hint, "send a request of HTTP/1.1")
            await self._send(self._door.refuse(error.error_status_hint, f"{what}: {remedy}"))


def _hurry(scope: trio.CancelScope) -> None:
    scope.deadline = min(scope.deadline, trio.current_time() + CROWDED)


def _request_of(head: h11.Request, body: bytes) -> Request:
    def text(data: bytes) -> str:
        return data.decode("ascii", "replace")

    headers = {text(name): text(value) for name, value in head.headers}
    target = text(head.target)
    if not target.startswith("/") and "://" in target:  # as for a proxy (RFC 9112 section 3.2.2)
        target = "/" + target.partition("://")[2].partition("/")[2]
    return Request(text(head.method), target, headers, body)
