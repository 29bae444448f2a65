"""Pings that the forwarder was asked for and that wait for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.link.messages import Ponged

if TYPE_CHECKING:
    from overlay.forwarder import Forwarder
    from overlay.link.messages import PingPeer


class PingQuestions:
    """The waiting pings, by identifier."""

    def __init__(self) -> None:
        self._asked: dict[int, trio.MemorySendChannel[Ponged]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    async def ask(self, forwarder: Forwarder, ping: PingPeer, timeout: float) -> Ponged | None:
        """Return the forwarder's answer to *ping* within *timeout* seconds, if any.  Raises ForwarderGoneError."""
        pong_in, pong_out = trio.open_memory_channel[Ponged](1)
        self._asked[ping.identifier] = pong_in
        with pong_in, pong_out:
            try:
                with trio.move_on_after(timeout):
                    await forwarder.send(ping)
                    return await pong_out.receive()
            finally:
                self._asked.pop(ping.identifier, None)
        return None

    def awaits(self, report: Ponged) -> bool:
        """Return whether a ping waits for *report*."""
        return report.identifier in self._asked

    def take(self, report: Ponged) -> None:
        """Take an answer; ignore it if it is no longer awaited."""
        asker = self._asked.pop(report.identifier, None)
        if asker is not None:
            asker.send_nowait(report)
