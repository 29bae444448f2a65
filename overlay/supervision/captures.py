"""Running captures of dropped packets: the forwarder, and any successor of it, has the socket of each.

The capturing program has the other end of the socket; no packet passes through the agent.
"""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

import trio

from overlay.link.messages import BeginCapture, EndCapture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from overlay.link.messages import Command

# Ours
MOST_CAPTURES = 16  # at the same time


class Captures:
    """The captures of a node.  *tell* sends commands to its forwarder."""

    def __init__(self, tell: Callable[[Command, Sequence[int]], Awaitable[None]]) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)
        self._running: dict[int, tuple[BeginCapture, socket.socket]] = {}
        self._begun, self._to_watch = trio.open_memory_channel[int](MOST_CAPTURES)

    def __len__(self) -> int:
        return len(self._running)

    async def begin(self, opened: socket.socket, snaplen: int) -> bool:
        """Make the forwarder report dropped packets to *opened* until its other end is closed; False if too many run.

        *opened* is closed at the end in either case.
        """
        if len(self._running) >= MOST_CAPTURES:
            opened.close()
            return False
        command = BeginCapture(next(self._numbers), snaplen)
        self._running[command.number] = command, opened
        self._begun.send_nowait(command.number)
        await self._tell(command, [opened.fileno()])
        return True

    def everything(self) -> Iterator[tuple[Command, Sequence[int]]]:
        """Yield the commands for a new forwarder, with their descriptors."""
        for command, opened in self._running.values():
            yield command, [opened.fileno()]

    async def keep(self) -> None:
        """End each capture when the other end of its socket is closed."""
        try:
            async with trio.open_nursery() as nursery:
                async for number in self._to_watch:
                    nursery.start_soon(self._end_in_time, number)
        finally:
            for _, opened in self._running.values():
                opened.close()

    async def _end_in_time(self, number: int) -> None:
        _, opened = self._running[number]
        # Nothing is ever sent on it: it becomes readable when the capture is over, or the other end misbehaves.
        await trio.lowlevel.wait_readable(opened)
        del self._running[number]
        opened.close()
        await self._tell(EndCapture(number), ())


def is_fit(opened: socket.socket) -> bool:
    """Return whether *opened* is the kind of socket on which a forwarder can report."""
    kind = opened.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    return opened.family == socket.AF_UNIX and kind == socket.SOCK_SEQPACKET
