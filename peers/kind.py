"""A kind of sections in a peers file: everything that is [KIND.NAME], such as [peers.paris].

A kind that is added is one such value, in a module of its own with the values that it reads, and a line in
``peers.kinds``.  Table.sections has the sections of all kinds, where ``of`` finds those of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from peers.key import Key
    from peers.peer import Network, Peer
    from peers.toml_section import Section

T = TypeVar("T")

Sections: TypeAlias = "Mapping[Kind[Any], Mapping[str, Any]]"
"""What the sections of each kind say, by their names."""


def _nothing(_network: Network, _peers: Mapping[str, Peer], _sections: Sections) -> Iterable[str]:
    return ()


@dataclass(frozen=True, eq=False, slots=True)
class Kind(Generic[T]):
    """The sections [*name*.NAME], each with the *keys* of their rows.

    *read* makes the value of one section, which is in the table of all of them by its name; relative file names are
    below the directory, if there is one.  It raises KeyProblem, and may not look at other sections but [network].

    *check* raises KeyProblem for sections that contradict each other, or those of other kinds; *warn* yields a sentence
    for all that is allowed and may yet be a mistake.  Both are given what was read of the whole file.

    *demand* says what to write into a file that has no section of the kind; without it there may be none.
    """

    name: str
    keys: tuple[Key, ...]
    read: Callable[[Section, str, Network, Path | None], T]
    check: Callable[[Network, Mapping[str, Peer], Sections], object] = _nothing
    warn: Callable[[Network, Mapping[str, Peer], Sections], Iterable[str]] = _nothing
    demand: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys that a section may have."""
        return tuple(key.name for key in self.keys)

    def of(self, sections: Sections) -> Mapping[str, T]:
        """Return those of *sections* that are of this kind."""
        return sections.get(self, {})

    def read_all(self, document: Section, network: Network, directory: Path | None) -> dict[str, T]:
        """Return the values of the sections of this kind in *document*.  Raises KeyProblem."""
        if self.name not in document.values and not self.demand:
            return {}
        table = document.section(self.name, self.demand or f"write a [{self.name}.NAME] table for each")
        return {name: self.read(table, name, network, directory) for name in table.values}
