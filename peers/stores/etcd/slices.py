"""Computing over many keys a slice at a time, so that an agent does other things between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import trio

from peers.garbage import growing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

T = TypeVar("T")

Slices: TypeAlias = "Generator[None, None, T]"
"""Computes a slice at each step, and returns the result after the last."""

# Ours
SLICE = 200  # keys; some 10 ms


def each_in(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield each of *items*, and whether a slice ends before it."""
    for number, item in enumerate(items):
        yield item, number > 0 and number % SLICE == 0


class _Run(Generic[T]):
    """The steps of *slices*, whose *result* is there after the last."""

    result: T

    def __init__(self, slices: Slices[T]) -> None:
        self._slices = slices

    def __iter__(self) -> Iterator[None]:
        self.result = yield from self._slices


def finish(slices: Slices[T]) -> T:
    """Return the result of all *slices*, computed in one go."""
    run = _Run(slices)
    for _ in run:
        pass
    return run.result


async def compute(slices: Slices[T]) -> T:
    """Return the result of *slices*; other tasks have their turn between two."""
    run = _Run(slices)
    with growing():
        for _ in run:
            await trio.lowlevel.checkpoint()
    return run.result
