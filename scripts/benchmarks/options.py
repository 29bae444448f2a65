"""How the benchmarks read their command lines."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn, TypeVar

from scripts.benchmarks.console import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

N = TypeVar("N", int, float)


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        fail(message)


def between(low: N, high: N) -> Callable[[str], N]:
    """Return the type of an option that is a number from *low* to *high*; a whole number if they are."""
    kind = type(low)

    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            whole = " whole" if kind is int else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a{whole} number from {low} to {high}")
        return value

    return read


def several(read: Callable[[str], N]) -> Callable[[str], list[N]]:
    """Return the type of an option that lists numbers with commas between them."""
    return lambda text: list(dict.fromkeys(read(word) for word in text.split(",")))


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that lists some of the *known* words, with commas between them."""

    def read(text: str) -> list[str]:
        words = list(dict.fromkeys(word.strip() for word in text.split(",")))
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"there is no {word!r}; choose from {', '.join(known)}")
        return words

    return read
