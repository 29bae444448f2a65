"""Accepting connections: as many at once as there is room for, even when descriptors run out."""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Ours
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_PAUSE = 0.1  # seconds before another connection is tried after descriptors ran out
GIVE_WAY_PAUSE = 0.1  # seconds until *give_way* is called again after it could not help
EXHAUSTED_INTERVAL = 60.0  # seconds between two log lines about that

log = logging.getLogger("overlay")


async def take_each(
    incoming: trio.SocketListener,
    take: Callable[[trio.SocketStream], Awaitable[None]],
    most: int,
    who: str,
    give_way: Callable[[], bool] | None = None,
) -> None:
    """Pass every incoming connection to *take*, at most *most* at once, until cancelled.

    Others wait in the queue of *incoming*.  When one must wait, *give_way* is called, if given, to end one of the
    accepted connections soon; it returns False if it cannot.  *who* names the waiting clients in the log when
    descriptors run out: ``questions to this agent``.
    """
    room, told_at = trio.Semaphore(most), -math.inf

    async def take_part(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await take(stream)
        finally:
            room.release()

    async with trio.open_nursery() as nursery:
        while True:
            while give_way is not None and not room.value:
                await trio.lowlevel.wait_readable(incoming.socket)
                if room.value or give_way():
                    break
                await trio.sleep(GIVE_WAY_PAUSE)
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
                    log.error("%s wait until they can be accepted: %s", who, error.strerror)  # noqa: TRY400  it says enough
                await trio.sleep(EXHAUSTED_PAUSE)
