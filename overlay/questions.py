"""The agent's end of the control socket: one question on a line of JSON, one answer.

An answer with a row for each peer is told in pieces: lines with a few rows each come before the line with the rest, so
that neither end holds anything up, or has a limit that ten times as many peers would reach.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from overlay.doors.accepting import take_each
from overlay.host import control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Ours
# At once; others wait in the listener's queue.  As many pings as may wait for their answers, and other requests, leave
# the agent half of the 1024 descriptors that a process usually has.
CONVERSATIONS = 400
REQUEST_BYTES = 4 * 1024 * 1024  # a runtime names all its containers at once
CHUNK = 16 * 1024  # bytes of it read at once
REQUEST_TIMEOUT = 5.0  # seconds for a question to arrive whole, and for each line of its answer to leave

DESCRIPTORS = 3  # that may come with each piece of a question: those of a container's namespace do
INTEGER = struct.Struct("=i")

Answer: TypeAlias = dict[str, Any]
TellRows: TypeAlias = "Callable[[list[Answer]], Awaitable[None]]"


class Request(dict[str, Any]):
    """A question.  Its *descriptors* came with it, and are closed when it has been answered."""

    descriptors: tuple[int, ...] = ()


async def serve(
    listener: socket.socket,
    answer: Callable[[Request, TellRows], Awaitable[Answer]],
    answered: Callable[[Request, Answer], None],
    most: int = CONVERSATIONS,
) -> None:
    """Answer every question that comes in; *answered* is called when the answer has left.

    What *answer* is handed with the question tells rows before the answer itself.  At most *most* take place
    at once, and without a free descriptor none begins.
    """

    async def converse(stream: trio.SocketStream) -> None:
        async def tell_rows(rows: list[Answer]) -> None:
            with trio.fail_after(REQUEST_TIMEOUT):
                await stream.send_all(control.encode({"rows": rows, "more": True}))

        async with stream:
            request, passed = Request(), list[int]()
            try:
                request.update(control.decode(await _read_line(stream, passed)))
            except ValueError:
                reply = refusal("the request is not one line of JSON")
            else:
                request.descriptors = tuple(passed)
                try:
                    reply = await answer(request, tell_rows)
                except (trio.BrokenResourceError, trio.TooSlowError):
                    return  # the asker does not read it
            finally:
                for descriptor in passed:
                    os.close(descriptor)
            with trio.move_on_after(REQUEST_TIMEOUT), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(control.encode(reply))
        answered(request, reply)

    raw = trio.socket.from_stdlib_socket(listener.dup())
    async with trio.SocketListener(raw) as incoming:
        await take_each(incoming, converse, most, "questions to this agent")


def refusal(error: str, kind: str = "failed") -> Answer:
    """Return the answer to a request that failed, with *error* as the reason."""
    return {"ok": False, "kind": kind, "error": error}


async def _read_line(stream: trio.SocketStream, passed: list[int]) -> bytes:
    """Return what comes up to the end of a line, and put the descriptors that come with it into *passed*."""
    line = bytearray()
    room = socket.CMSG_LEN(DESCRIPTORS * INTEGER.size)
    with trio.move_on_after(REQUEST_TIMEOUT), contextlib.suppress(OSError):
        while b"\n" not in line[-CHUNK:] and len(line) <= REQUEST_BYTES:
            # The kernel closes descriptors that do not fit.
            chunk, ancillary, *_ = await stream.socket.recvmsg(CHUNK, room, socket.MSG_CMSG_CLOEXEC)
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    passed += (number for (number,) in INTEGER.iter_unpack(data[: len(data) & -INTEGER.size]))
            if not chunk:
                break
            line += chunk
    return bytes(line)
