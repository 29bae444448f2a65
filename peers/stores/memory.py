"""A store in memory, for tests: it behaves as the file does, without a disk.  No command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peers.problems import find_problems
from peers.sections import TableReader

if TYPE_CHECKING:
    from peers.errors import TableError
    from peers.stores.remark import StoreRemark
    from peers.table import Table

PATH = Path("memory")  # the file name in errors


class MemoryStore:
    """The table in a text that write() replaces."""

    def __init__(self, text: str) -> None:
        self._reader = TableReader(PATH, has_directory=False)
        self._text = text
        self._loaded: str | None = None

    def write(self, text: str) -> None:
        """Let the next load() read *text*, the content of a peers file."""
        self._text = text

    def load(self) -> Table:
        """Return the table in the text.  Raises TableError if it is wrong."""
        self._loaded = self._text
        return self._reader.parse(self._text)

    def changed(self) -> bool:
        """Return whether the text is another than at the last load()."""
        return self._text != self._loaded

    def is_absent(self) -> bool:
        """Return False: a text is always there."""
        return False

    def problems(self, most: int) -> list[TableError]:
        """Return what is wrong in the text, at most *most* problems."""
        return find_problems(self._text, PATH, most, has_directory=False)

    def files(self) -> tuple[Path, ...]:
        """Return none."""
        return ()

    def secrets(self) -> tuple[Path, ...]:
        """Return none."""
        return ()

    def notes(self) -> list[StoreRemark]:
        """Return none."""
        return []
