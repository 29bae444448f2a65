"""The difference between what was read before and what is read now, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """Names that are *added*, *removed*, and *changed* in what is under them, each in the order of its file."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.added or self.removed or self.changed)


def difference(before: Mapping[str, T], now: Mapping[str, T]) -> Difference:
    """Return how *now* differs from *before*: services of two tables, or servers of two services."""
    return Difference(
        tuple(name for name in now if name not in before),
        tuple(name for name in before if name not in now),
        tuple(name for name, value in now.items() if name in before and before[name] != value),
    )
