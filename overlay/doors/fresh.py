"""An answer that takes a while, made once for all clients that ask at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

# Ours
LEAST_AGE = 0.5  # seconds for which an answer serves all clients
SHARE = 0.5  # of the time, at most, that making answers takes


class Fresh(Generic[T]):
    """The result of *make*, or a recent one, so that frequent questions do not keep the process busy."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make, self._making = make, trio.Lock()
        self._made: tuple[T] | None = None
        self._good_until = -1.0

    async def take(self) -> T:
        """Return a new answer, or a recent one if making another would take too much time."""
        async with self._making:
            began = trio.current_time()
            if self._made is None or began >= self._good_until:
                self._made = (await self._make(),)
                ended = trio.current_time()
                self._good_until = ended + max(LEAST_AGE, (ended - began) * (1 / SHARE - 1))
            return self._made[0]
