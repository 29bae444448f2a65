"""The agent's end of the control socket: one question on a line of JSON, one answer.

An answer with a row for each peer is sent in parts: lines with a few rows each come before the line with the rest.  So
neither end blocks for long, and no limit depends on the number of peers.
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

# At once; others wait in the listener's queue.  Together with the pings that may wait for answers, these leave the
# agent half of the 1024 descriptors that a process usually has.
CONVERSATIONS = 400
REQUEST_BYTES = 4 * 1024 * 1024  # a runtime may name all its containers at once
CHUNK = 16 * 1024  # bytes read at once
REQUEST_TIMEOUT = 5.0  # seconds for a question to arrive, and for each line of its answer to be sent

DESCRIPTORS = 3  # that may come with each part of a question, such as those of a container's namespace
INTEGER = struct.Struct("=i")

Answer: TypeAlias = dict[str, Any]
TellRows: TypeAlias = "Callable[[list[Answer]], Awaitable[None]]"


class Request(dict[str, Any]):
    """A question.  The *descriptors* that came with it are closed when it has been answered."""

    descriptors: tuple[int, ...] = ()


async def serve(
    listener: socket.socket,
    answer: Callable[[Request, TellRows], Awaitable[Answer]],
    answered: Callable[[Request, Answer], None],
    most: int = CONVERSATIONS,
) -> None:
    """Answer every question that arrives; *answered* is called when the answer has been sent.

    *answer* gets a function that sends rows before the answer itself.  At most *most* questions are handled at once,
    and none starts without a free descriptor.
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
                    return  # the client does not read it
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
    """Return the answer to a failed request, with *error* as the reason."""
    return {"ok": False, "kind": kind, "error": error}


async def _read_line(stream: trio.SocketStream, passed: list[int]) -> bytes:
    """Return the bytes before the end of a line, and put the descriptors that come with it into *passed*."""
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
