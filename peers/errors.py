"""What can go wrong with peers, by who must act.

PeersError
├── TableError    an operator must edit the peers file; names the file and, where known, the line
├── KeyProblem    the same before file and line are known: what is wrong at one key; the reader of a
│                 format turns it into a TableError
└── StoreError    the peer store cannot be opened or reached; the previous table stays in force
    └── MemberError   an operator must change an option of this host, which cannot take part as it is to
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

Keys: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a table: ``("peers", "paris", "subnets", 1)``."""

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class PeersError(Exception):
    """The base of all errors that this package raises on purpose.  Its text is one sentence for people."""


class TableError(PeersError):
    """A peers file that an operator must change.

    *line* counts from 1; None if the whole file is meant.  *problem* says what was found, what is accepted
    and the remedy.
    """

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        place = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class KeyProblem(PeersError):  # noqa: N818  it is not yet the error: that is the TableError made from it
    """The peers do not make a table.  The text is the key followed by *finding*, as one sentence."""

    def __init__(self, keys: Keys, finding: str) -> None:
        super().__init__(f"{format_keys(keys)} {finding}")
        self.keys = keys
        self.finding = finding


class StoreError(PeersError):
    """A peer store that cannot be opened or is out of reach."""


class MemberError(StoreError):
    """A host that cannot take part in the network of a store as its options say; the text names the option."""


def format_keys(keys: Keys) -> str:
    """Return *keys* as TOML writes them: ``peers.paris.subnets[1]``, ``peers."tokyo.lan".endpoint``."""
    parts: list[str] = []
    for key in keys:
        if isinstance(key, int):
            parts.append(f"[{key}]")
            continue
        if parts:
            parts.append(".")
        parts.append(key if BARE_KEY.fullmatch(key) else '"' + repr(key)[1:-1].replace('"', '\\"') + '"')
    return "".join(parts)
