"""One table of a peers file, read key by key; what is not accepted is a sentence on that key."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from peers.errors import KeyProblem, Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers.addresses import Address

T = TypeVar("T")

# Ours
SHOWN_SIZE = 60  # characters of a value that an error text repeats


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file and its place.  Its methods raise KeyProblem for what is not accepted."""

    keys: Keys
    values: Mapping[str, object]

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        for key in self.values:
            if key in known:
                continue
            if key == "private_key":
                remedy = "keep private keys out of this file and write the public_key"
            elif close := difflib.get_close_matches(key, known, n=1):
                remedy = f"did you mean {close[0]}?"
            else:
                remedy = f"accepted are {', '.join(known)}"
            raise KeyProblem((*self.keys, key), f"is not known; {remedy}")

    def section(self, key: str, remedy: str) -> Section:
        if key not in self.values:
            raise KeyProblem((*self.keys, key), f"is missing; {remedy}")
        value = self.values[key]
        if not isinstance(value, dict):
            raise KeyProblem((*self.keys, key), f"is {describe(value)}; {remedy}")
        return Section((*self.keys, key), cast("Mapping[str, object]", value))

    def integer(self, key: str, low: int, high: int, what: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        hint = ", without quotes" if isinstance(value, str) else ""
        raise KeyProblem((*self.keys, key), f"is {describe(value)}; write {what} from {low} to {high}{hint}")

    def number(self, key: str, low: float, high: float, what: str) -> float | None:
        """Return a number with or without a fraction; None if *key* is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        hint = ", without quotes" if isinstance(value, str) else ""
        raise KeyProblem(
            (*self.keys, key), f"is {describe(value)}; write {what} from {low:g} to {high:g}{hint}"
        )

    def boolean(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise KeyProblem((*self.keys, key), f"is {describe(value)}; write true or false, without quotes")

    def string(self, key: str, accepted: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise KeyProblem((*self.keys, key), f"is {describe(value)}; write {accepted} in quotes")

    def choice(self, key: str, accepted: tuple[str, ...]) -> str | None:
        listed = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
        text = self.string(key, listed)
        if text is None or text in accepted:
            return text
        raise KeyProblem((*self.keys, key), f"is {describe(text)}; write {listed}")

    def items(self, key: str) -> list[tuple[Keys, object]] | None:
        """Return the items of a list, or the single item that stands without one, with their places; None if absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, list):
            return [((*self.keys, key, index), item) for index, item in enumerate(value)]
        return [((*self.keys, key), value)]

    def each(self, key: str, parse_item: Callable[[str], T], accepted: str) -> tuple[T, ...] | None:
        """Return the items of a list or of a single string, parsed; None if *key* is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str | list):
            raise KeyProblem(
                (*self.keys, key), f"is {describe(value)}; write {accepted} in quotes, or a list"
            )
        items: list[T] = []
        for index, item in enumerate([value] if isinstance(value, str) else value):
            place = (*self.keys, key) if isinstance(value, str) else (*self.keys, key, index)
            if not isinstance(item, str):
                raise KeyProblem(place, f"is {describe(item)}; write {accepted} in quotes")
            try:
                items.append(parse_item(item))
            except ValueError as error:
                raise KeyProblem(place, f"{describe(item)} {error}") from None
        return tuple(items)


def refuse_second_of_family(keys: Keys, addresses: tuple[Address, ...]) -> None:
    seen: set[int] = set()
    for index, address in enumerate(addresses):
        if address.version in seen:
            raise KeyProblem(
                (*keys, index),
                f"{address} is a second IPv{address.version} address; write at most one of each family",
            )
        seen.add(address.version)


def refuse_repeated(keys: Keys, values: tuple[object, ...]) -> None:
    counts: Counter[object] = Counter()
    for index, value in enumerate(values):
        counts[value] += 1
        if counts[value] > 1:
            raise KeyProblem((*keys, index), f"{value} is here twice; write it once")


def describe(value: object) -> str:
    """Return *value* for an error text: on one line, and short."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 2**64:
            return "a number beyond 64 bits"
        case int() | float():
            return str(value)
        case str():
            shown = repr(value)
            return shown if len(shown) <= SHOWN_SIZE else f"{shown[:SHOWN_SIZE]}..."
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"
