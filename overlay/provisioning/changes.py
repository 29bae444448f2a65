"""When to look at the host's network again: after a moment, because changes come in bursts; at once if packets could
leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Ours
GATHER_TIME = 0.5  # seconds during which changes of the host's network are gathered
READ_PAUSE = 0.05  # seconds between two reads meanwhile: a routing daemon may change thousands of routes


class Watched(Protocol):
    """Reports changes: overlay.host.netlink.watch.Watch."""

    def fileno(self) -> int: ...

    def drain(self) -> bool: ...

    def take_loss(self) -> bool: ...


async def gather(watch: Watched, mend: Callable[[], Awaitable[None]]) -> bool:
    """Wait for a change of the host's network, and GATHER_TIME more; return whether another program changed anything.

    *mend* is called as soon as a removed route or rule lets packets for the overlay leave unencrypted; it is not
    cancelled midway.
    """
    await trio.lowlevel.wait_readable(watch.fileno())
    is_foreign, ends = False, trio.current_time() + GATHER_TIME
    while trio.current_time() < ends:
        is_foreign |= watch.drain()
        if watch.take_loss():
            await mend()
        with trio.move_on_at(ends):
            await trio.sleep(READ_PAUSE)
            await trio.lowlevel.wait_readable(watch.fileno())
    return watch.drain() or is_foreign
