"""A peers file that is read again and again: sections whose text is as it was are not parsed again.

A file is cut before each line that is the header of [network] or of one section of a kind, [peers.NAME].  Each piece is
parsed alone, and what it says is known by its text.  That is the same as parsing the whole where no piece has anything
to do with another; wherever that is not plain, and for everything that is wrong, the whole is read by peers.toml, whose
errors know their lines.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from peers import toml
from peers.errors import KeyProblem, TableError
from peers.kinds import KINDS
from peers.peer_section import PEERS
from peers.table import Table
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from peers.kind import Kind
    from peers.peer import Network

Read: TypeAlias = "tuple[Kind[Any], str, Any]"
"""A section: its kind, its name, and what it says."""

STRINGS_OVER_LINES = ('"""', "'''")


class TableReader:
    """Reads the texts that the file *path* has had, one after the other."""

    def __init__(
        self, path: Path, *, has_directory: bool = True, kinds: Collection[Kind[Any]] = KINDS
    ) -> None:
        self._path, self._has_directory = path, has_directory
        self._kinds = {kind.name: kind for kind in kinds}
        self._header = _header(self._kinds)
        self._text: str | None = None  # the last one
        self._result: Table | TableError | None = None
        self._network: Network | None = None
        self._known: dict[str, Read] = {}  # by the text of its section, in a network like that

    def parse(self, text: str) -> Table:
        """Return the table that *text* writes, as peers.toml.parse() does; the last one itself for the same text.

        Raises TableError, and nothing else, for any text.
        """
        if text != self._text:
            self._result = self._parse(text)
            self._text = text
        assert self._result is not None
        if isinstance(self._result, TableError):
            raise TableError(self._path, self._result.line, self._result.problem)
        return self._result

    def _parse(self, text: str) -> Table | TableError:
        try:
            return self._parse_sections(text.removeprefix("\ufeff")) or toml.parse(
                text, self._path, has_directory=self._has_directory
            )
        except KeyProblem as problem:
            return toml.to_error(problem, text, self._path)
        except TableError as error:
            return error

    def _parse_sections(self, text: str) -> Table | None:
        """Return the table of *text*; None where the whole has to be read.  Raises KeyProblem for the table."""
        pieces = self._cut(text)
        if pieces is None:
            return None
        network_text, texts = pieces
        try:
            network = toml.read_network(_only(network_text, "network"))
            known = self._known if network == self._network else {}
            read = {each: known.get(each) or self._read_section(each, network) for each in texts}
        except (
            KeyProblem,
            ValueError,
            RecursionError,
        ):  # ValueError: no TOML by itself, or more than one table
            return None
        sections: dict[Kind[Any], dict[str, Any]] = {kind: {} for kind in self._kinds.values()}
        for kind, name, value in read.values():
            sections[kind][name] = value
        if sum(map(len, sections.values())) < len(texts) or not sections[PEERS]:  # one is here twice
            return None
        self._network, self._known = network, read
        return Table(network, sections.pop(PEERS), sections)

    def _read_section(self, text: str, network: Network) -> Read:
        kind = self._kinds[text[1 : text.index(".")]]
        section = _only(text, kind.name)
        (name,) = section.values
        value = kind.read(section, name, network, self._path.parent if self._has_directory else None)
        return kind, name, value

    def _cut(self, text: str) -> tuple[str, list[str]] | None:
        """Return the section of the network and the others; None where it is not plain where they are."""
        if any(mark in text for mark in STRINGS_OVER_LINES):
            return None
        starts = [match.start() for match in self._header.finditer(text)]
        if len(starts) < 2:
            return None
        pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        networks = [piece for piece in pieces if piece.startswith("[network]")]
        if len(networks) != 1 or any(
            line and line[0] != "#" for line in map(str.strip, text[: starts[0]].split("\n"))
        ):
            return None
        return networks[0], [piece for piece in pieces if piece is not networks[0]]


def _header(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the headers of [network] and of sections [NAME.X], for each of *names*.

    A line that looks like this is nothing else in valid TOML, but for strings over several lines.
    """
    return re.compile(
        rf"""^\[(?:network|(?:{"|".join(names)})\.(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*'))\][ \t]*(?:\#[^\n]*)?$""",
        re.MULTILINE,
    )


def _only(text: str, name: str) -> Section:
    """Return the table *name*, which is all that *text* has.  Raises ValueError."""
    document = tomllib.loads(text)
    if document.keys() != {name}:
        raise ValueError("there are other tables")
    return Section((name,), cast("Mapping[str, object]", document[name]))
