"""Questions to the forwarder that have one answer each: in-band pings, and where a station is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from overlay.link.messages import Ponged, Station

if TYPE_CHECKING:
    from overlay.link.messages import AskStation, PingPeer
    from overlay.supervision.forwarder import Forwarder

A = TypeVar("A", Ponged, Station)


class Questions(Generic[A]):
    """The questions in progress, by identifier."""

    def __init__(self) -> None:
        self._asked: dict[int, trio.MemorySendChannel[A]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    async def ask(self, forwarder: Forwarder, question: PingPeer | AskStation, timeout: float) -> A | None:
        """Return the answer of *forwarder* to *question*; None if there is none within *timeout* seconds.

        Raises ForwarderGoneError.
        """
        told, answers = trio.open_memory_channel[A](1)
        self._asked[question.identifier] = told
        with told, answers:
            try:
                with trio.move_on_after(timeout):
                    await forwarder.send(question)
                    return await answers.receive()
            finally:
                self._asked.pop(question.identifier, None)
        return None

    def awaits(self, report: A) -> bool:
        """Return whether *report* is awaited."""
        return report.identifier in self._asked

    def take(self, report: A) -> None:
        """Take an answer; ignore it if it is no longer awaited."""
        asker = self._asked.pop(report.identifier, None)
        if asker is not None:
            asker.send_nowait(report)
