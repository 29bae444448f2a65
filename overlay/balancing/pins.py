"""Flows of this node's own that the forwarder leads to a server of its choice."""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING, TypeAlias

import trio

from overlay.link.service_messages import Pin, Unpin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from overlay.link.messages import Command
    from overlay.link.service_messages import Pinned

Flow: TypeAlias = "tuple[int, bytes, int, bytes, int]"
"""Protocol, client, client's port, virtual address and port; of an echo the identifier and 0."""

# Ours
PATIENCE = 2.0  # seconds for the forwarder to lead a flow to its server


class Pins:
    """What the forwarder is asked to lead.  *tell* tells it."""

    def __init__(self, tell: Callable[[Command], Awaitable[None]]) -> None:
        self._tell = tell
        self._serials = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[bool]] = {}

    async def pin(self, flow: Flow, target: tuple[int, int]) -> None:
        """Have *flow* led to *target*, the numbers of a service and its server.  Raises OSError if it is not."""
        serial = next(self._serials)
        told, answer = trio.open_memory_channel[bool](1)
        self._waiting[serial] = told
        try:
            with trio.move_on_after(PATIENCE):
                await self._tell(Pin(serial, *flow, *target))
                if await answer.receive():
                    return
        finally:
            self._waiting.pop(serial, None)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def unpin(self, flow: Flow) -> None:
        """Let *flow* be led as all others again."""
        await self._tell(Unpin(*flow))

    def awaits(self, report: Pinned) -> bool:
        """Return whether somebody waits for *report*."""
        return report.serial in self._waiting

    def take(self, report: Pinned) -> bool:
        """Take the forwarder's answer; return False if nobody waits for it."""
        waiting = self._waiting.pop(report.serial, None)
        if waiting is not None:
            waiting.send_nowait(report.is_done)
        return waiting is not None
