"""The agent's end of the control socket: one question on a line of JSON, one answer.

An answer with a row for each peer is told in pieces: lines with a few rows each come before the line with the rest, so
that neither end holds anything up, or has a limit that ten times as many peers would reach.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from overlay.host import control

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

# Ours
# At once; others wait in the listener's queue.  As many pings as may wait for their answers, and others beside them,
# leave the agent half of the 1024 descriptors that a process usually has.
CONVERSATIONS = 400
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_PAUSE = 0.1  # seconds before another conversation is tried where there is no descriptor for it
EXHAUSTED_INTERVAL = 60.0  # seconds between two log lines about that
REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT = 5.0  # seconds for a question to arrive whole, and for each line of its answer to leave

log = logging.getLogger("overlay")

Answer: TypeAlias = dict[str, Any]
TellRows: TypeAlias = "Callable[[list[Answer]], Awaitable[None]]"


async def serve(
    listener: socket.socket,
    answer: Callable[[dict[str, Any], TellRows], Awaitable[Answer]],
    answered: Callable[[dict[str, Any], Answer], None],
    most: int = CONVERSATIONS,
) -> None:
    """Answer every question that comes in; *answered* is called when the answer has left.

    What *answer* is handed beside the question tells rows before the answer itself.  At most *most* take place at
    once, and without a free descriptor none begins.
    """
    room = trio.Semaphore(most)

    async def converse(stream: trio.SocketStream) -> None:
        async def tell_rows(rows: list[Answer]) -> None:
            with trio.fail_after(REQUEST_TIMEOUT):
                await stream.send_all(control.encode({"rows": rows, "more": True}))

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

    async def take_part(stream: trio.SocketStream) -> None:
        try:
            await converse(stream)
        finally:
            room.release()

    raw, told_at = trio.socket.from_stdlib_socket(listener.dup()), -math.inf
    async with trio.SocketListener(raw) as incoming, trio.open_nursery() as nursery:
        while True:
            await room.acquire()
            try:
                nursery.start_soon(take_part, await incoming.accept())
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                room.release()
                now = trio.current_time()
                if now - told_at >= EXHAUSTED_INTERVAL:
                    told_at = now
                    log.error("questions to this agent wait until it can take them: %s", error.strerror)  # noqa: TRY400  its text is the news
                await trio.sleep(EXHAUSTED_PAUSE)


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
