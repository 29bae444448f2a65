"""Names of services, checks and groups, and those of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.errors import KeyProblem
from peers.peer import PEER_NAME

if TYPE_CHECKING:
    from peers.key import Key
    from peers.toml_section import Section


def named_section(table: Section, name: str, what: str) -> Section:
    """Return the section *name* of *table*; *what* is what it describes.  Raises KeyProblem."""
    if not PEER_NAME.fullmatch(name):
        raise KeyProblem(
            (*table.keys, name),
            f"is not the name of a {what}; write 1 to 63 letters, digits, dots, hyphens or underscores",
        )
    return table.section(name, f"write a [{table.keys[0]}.{name}] table")


def names_of(keys: tuple[Key, ...]) -> tuple[str, ...]:
    """Return the names of *keys*."""
    return tuple(key.name for key in keys)
