"""HTTP as dockerd speaks it to a plugin: POST with JSON over a unix socket, one question after the other on a connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Specification: libnetwork's docs/remote.md, Docker's plugin API
CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

# Ours
CONNECTIONS = 64  # at once; dockerd has a few
HEADER_SIZE = 16 * 1024  # bytes
BODY_SIZE = 4 * 1024 * 1024  # bytes; all 65535 ports of a container take two thirds of it
IDLE_TIMEOUT = 120.0  # seconds; dockerd closes connections that are idle for 30
TIMEOUT = 10.0  # seconds for a question to arrive whole, and for its answer to leave
PIECE = 64 * 1024

Answer: TypeAlias = "Callable[[str, dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]"
"""Takes the path of a call and its body; returns the status and the body of the answer."""


async def serve(listener: trio.SocketListener, answer: Answer) -> None:
    """Answer what comes in, until cancelled."""
    room = trio.CapacityLimiter(CONNECTIONS)

    async def take_part(stream: trio.SocketStream) -> None:
        async with stream, room:
            await _converse(stream, answer)

    await trio.serve_listeners(take_part, [listener])


async def _converse(stream: trio.SocketStream, answer: Answer) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_SIZE)
    while True:
        try:
            with trio.move_on_after(IDLE_TIMEOUT) as waiting:
                request = await _next(connection, stream)
            if waiting.cancelled_caught or not isinstance(request, h11.Request):
                return
            with trio.fail_after(TIMEOUT):
                data = await _read_body(connection, stream)
            status, reply = await _ask(request, data, answer)
            with trio.fail_after(TIMEOUT):
                await _reply(connection, stream, status, reply)
        except h11.RemoteProtocolError as error:
            with trio.move_on_after(TIMEOUT):
                await _refuse(connection, stream, error)
            return
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            h11.LocalProtocolError,
        ):
            return
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _next(connection: h11.Connection, stream: trio.SocketStream) -> object:
    """Return the next event, or that there will be none."""
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(await stream.receive_some(PIECE))


async def _read_body(connection: h11.Connection, stream: trio.SocketStream) -> bytes:
    """Return the body.  Raises RemoteProtocolError for one that is too long."""
    if connection.they_are_waiting_for_100_continue:
        data = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
        await stream.send_all(data or b"")
    body = bytearray()
    while isinstance(event := await _next(connection, stream), h11.Data):
        body += event.data
        if len(body) > BODY_SIZE:
            raise h11.RemoteProtocolError("the body is too long", error_status_hint=413)
    return bytes(body)


async def _ask(request: h11.Request, data: bytes, answer: Answer) -> tuple[int, dict[str, Any]]:
    if request.method != b"POST":
        return 405, {"Err": "a call of a plugin is a POST"}
    try:
        body = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return 400, {"Err": "the body is not a JSON object"}
    return await answer(request.target.decode("ascii", "replace"), body)


async def _reply(
    connection: h11.Connection, stream: trio.SocketStream, status: int, reply: dict[str, Any]
) -> None:
    data = json.dumps(reply).encode()
    headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(data)))]
    events = (h11.Response(status_code=status, headers=headers), h11.Data(data=data), h11.EndOfMessage())
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))


async def _refuse(
    connection: h11.Connection, stream: trio.SocketStream, error: h11.RemoteProtocolError
) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    try:
        await _reply(
            connection, stream, error.error_status_hint, {"Err": "this is not HTTP as Docker speaks it"}
        )
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
        return
