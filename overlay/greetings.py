"""Handshakes that nobody waits for, one after the other, so that they keep nothing from those that somebody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from overlay.session.constants import GREETINGS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


class Greetings:
    """The peers that are to be called although no packet waits for them: after a start, or when they are new or changed."""

    def __init__(self, greet: Callable[[int], Awaitable[None]]) -> None:
        """*greet* calls the peer of a number, if that is still wanted by then."""
        self._greet = greet
        self._waiting: dict[int, None] = {}  # in their order
        self._has_come = trio.Event()

    def add(self, numbers: Iterable[int]) -> None:
        """Have the peers of *numbers* greeted, after those that wait already."""
        self._waiting.update(dict.fromkeys(numbers))
        self._has_come.set()

    async def run(self) -> None:
        """Greet whoever is to be, at most GREETINGS_PER_SECOND."""
        while True:
            while not self._waiting:
                self._has_come = trio.Event()
                await self._has_come.wait()
            number = next(iter(self._waiting))
            del self._waiting[number]
            await self._greet(number)
            await trio.sleep(1 / GREETINGS_PER_SECOND)
