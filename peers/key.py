"""One key of a section, as a row: its name, how it is read and bounded, and the field that it fills.

If each field of a dataclass is one key, its row is at the field, as metadata: ``keys_of`` finds them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peers.toml_section import refuse_repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peers.toml_section import Section

Read: TypeAlias = "Callable[[Section, str], Any]"
"""Returns the value of a key in a section, None if it is left out.  Raises KeyProblem."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key *name*, read by *read* into *field*, which has the same name unless it is given.

    Without *read* its value depends on other keys, and its section's reader takes it.
    """

    name: str
    read: Read | None
    field: str = ""


def key(read: Read | None, name: str = "") -> dict[str, tuple[Key, ...]]:
    """Return the metadata of a field that one key fills, of the field's name unless *name* is given."""
    return keys(Key(name, read))


def keys(*rows: Key) -> dict[str, tuple[Key, ...]]:
    """Return the metadata of a field that several keys fill."""
    return {"keys": rows}


def keys_of(section: type) -> tuple[Key, ...]:
    """Return the keys of the dataclass *section*, in the order of its fields."""
    return tuple(
        row if row.field else Key(row.name or field.name, row.read, field.name)
        for field in dataclasses.fields(section)
        for row in field.metadata.get("keys", ())
    )


def read_keys(section: Section, keys: Iterable[Key]) -> dict[str, Any]:
    """Return the values of *keys* that *section* has, by field.  Raises KeyProblem for the first that is wrong."""
    read = ((key.field or key.name, key.read(section, key.name)) for key in keys if key.read is not None)
    return {field: value for field, value in read if value is not None}


def integer(least: int, most: int, what: str) -> Read:
    """Return a reader of numbers from *least* to *most*; errors call the value *what*, which names the unit."""
    return lambda section, key: section.integer(key, least, most, what)


def choice(*accepted: str) -> Read:
    """Return a reader of one of the words *accepted*."""
    return lambda section, key: section.choice(key, accepted)


def each(
    parse: Callable[[str], Any], accepted: str, shown: Callable[[Any], object] = lambda value: value
) -> Read:
    """Return a reader of lists of distinct items, or of a single item; *shown* makes an item the text
    that errors show.
    """

    def read(section: Section, key: str) -> tuple[Any, ...] | None:
        values = section.each(key, parse, accepted)
        if values is not None:
            refuse_repeated((*section.keys, key), tuple(map(shown, values)))
        return values

    return read
