"""The agent's end of the control socket: one question on a line of JSON, one answer.

An answer with a row for each peer is told in pieces: lines with a few rows each come before the line with the rest, so
that neither end holds anything up, or has a limit that ten times as many peers would reach.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from overlay.host import control

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

# Ours
REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT = 5.0  # seconds for a question to arrive whole, and for each line of its answer to leave

Answer: TypeAlias = dict[str, Any]
TellRows: TypeAlias = "Callable[[list[Answer]], Awaitable[None]]"


async def serve(
    listener: socket.socket,
    answer: Callable[[dict[str, Any], TellRows], Awaitable[Answer]],
    answered: Callable[[dict[str, Any], Answer], None],
) -> None:
    """Answer every question that comes in; *answered* is called when the answer has left.

    What *answer* is handed beside the question tells rows before the answer itself.
    """

    async def converse(stream: trio.SocketStream) -> None:
        async def tell_rows(rows: list[Answer]) -> None:
            with trio.fail_after(REQUEST_TIMEOUT):
                await stream.send_all(control.encode({"peers": rows, "more": True}))

        async with stream:
            line = await _read_line(stream)
            try:
                request = control.decode(line)
            except ValueError:
                request, reply = {}, refusal("the request is not one line of JSON")
            else:
                try:
                    reply = await answer(request, tell_rows)
                except (trio.BrokenResourceError, trio.TooSlowError):
                    return  # nobody reads it
            with trio.move_on_after(REQUEST_TIMEOUT), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(control.encode(reply))
        answered(request, reply)

    raw = trio.socket.from_stdlib_socket(listener.dup())
    await trio.serve_listeners(converse, [trio.SocketListener(raw)])


def refusal(error: str, kind: str = "failed") -> Answer:
    """Return the answer that says why there is no other."""
    return {"ok": False, "kind": kind, "error": error}


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = bytearray()
    with trio.move_on_after(REQUEST_TIMEOUT), contextlib.suppress(trio.BrokenResourceError):
        async for chunk in stream:
            line += chunk
            if b"\n" in chunk or len(line) > REQUEST_BYTES:
                break
    return bytes(line)
