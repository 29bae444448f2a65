"""A peers file that is read again and again: sections whose text is as it was are not parsed again.

A file is cut before each line that is the header of [network] or of one [peers.NAME].  Each piece is parsed alone, and
what it says is known by its text.  That is the same as parsing the whole where no piece has anything to do with
another; wherever that is not plain, and for everything that is wrong, the whole is read by peers.toml, whose errors
know their lines.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, cast

from peers import toml
from peers.errors import KeyProblem, TableError
from peers.table import Table
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peers.peer import Network, Peer

# A line that looks like this is nothing else in valid TOML, but for strings over several lines.
HEADER = re.compile(
    r"""^\[(?:network|peers\.(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*'))\][ \t]*(?:\#[^\n]*)?$""", re.MULTILINE
)
STRINGS_OVER_LINES = ('"""', "'''")


class Reader:
    """Reads the texts that the file *path* has had, one after the other."""

    def __init__(self, path: Path, *, has_directory: bool = True) -> None:
        self._path, self._has_directory = path, has_directory
        self._text: str | None = None  # the last one
        self._result: Table | TableError | None = None
        self._network: Network | None = None
        self._known: dict[str, Peer] = {}  # by the text of its section, in a network like that

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
        pieces = _cut(text)
        if pieces is None:
            return None
        network_text, sections = pieces
        try:
            network = toml.read_network(_only(network_text, "network"))
            known = self._known if network == self._network else {}
            peers: dict[str, Peer] = {}
            read: dict[str, Peer] = {}
            for section in sections:
                peer = known.get(section) or self._read_peer(section, network)
                read[section] = peers[peer.name] = peer
        except (
            KeyProblem,
            ValueError,
            RecursionError,
        ):  # ValueError: no TOML by itself, or more than one table
            return None
        if len(peers) < len(sections):  # one is here twice
            return None
        self._network, self._known = network, read
        return Table(network, peers)

    def _read_peer(self, text: str, network: Network) -> Peer:
        section = _only(text, "peers")
        (name,) = section.values
        return toml.read_peer(section, name, network, self._path.parent if self._has_directory else None)


def _cut(text: str) -> tuple[str, list[str]] | None:
    """Return the section of the network and those of the peers; None where it is not plain where they are."""
    if any(mark in text for mark in STRINGS_OVER_LINES):
        return None
    starts = [match.start() for match in HEADER.finditer(text)]
    if len(starts) < 2:
        return None
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    networks = [piece for piece in pieces if piece.startswith("[network]")]
    if len(networks) != 1 or any(line and line[0] != "#" for line in _lines(text[: starts[0]])):
        return None
    return networks[0], [piece for piece in pieces if piece is not networks[0]]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _only(text: str, name: str) -> Section:
    """Return the table *name*, which is all that *text* has.  Raises ValueError."""
    document = tomllib.loads(text)
    if document.keys() != {name}:
        raise ValueError("there are other tables")
    return Section((name,), cast("Mapping[str, object]", document[name]))
