"""Computing over many keys a slice at a time, so that an agent does other things between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

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


def finish(slices: Slices[T]) -> T:
    """Return the result of all *slices*, computed in one go."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            found: T = end.value
            return found


async def compute(slices: Slices[T]) -> T:
    """Return the result of *slices*; other tasks have their turn between two."""
    with growing():
        while True:
            try:
                next(slices)
            except StopIteration as end:
                found: T = end.value
                return found
            await trio.lowlevel.checkpoint()
