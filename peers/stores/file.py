"""The peers file on disk, the default store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from peers import toml
from peers.errors import TableError
from peers.problems import find_problems
from peers.sections import TableReader

if TYPE_CHECKING:
    from pathlib import Path

    from peers.stores.remark import StoreRemark
    from peers.table import Table

Signature: TypeAlias = tuple[int, ...]
"""Modification time in nanoseconds, size, inode, mode and owners.

Editors write in place, tools rename a new file over it, and a file that could not be read gets another mode or owner.
"""


class FileStore:
    """The table in one TOML file, watched by its signature."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = TableReader(path)
        self._loaded: Signature | None = None

    def load(self) -> Table:
        """Return the table in the file.  Raises TableError if it is wrong, missing or unreadable, and StoreError if it
        may be read later as it is.
        """
        # Taken first: what is written while we read is then seen as a change, never missed.
        self._loaded = self._signature()
        return self._reader.parse(toml.read(self.path))

    def changed(self) -> bool:
        """Return whether the file is another than at the last load().  One that has vanished is not."""
        signature = self._signature()
        return signature is not None and signature != self._loaded

    def is_absent(self) -> bool:
        """Return whether the file is gone."""
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):
            return False  # it may be there, out of our sight
        return False

    def problems(self, most: int) -> list[TableError]:
        """Return what is wrong in the file as it is now, at most *most* problems."""
        try:
            return find_problems(toml.read(self.path), self.path, most)
        except TableError as error:
            return [error]

    def files(self) -> tuple[Path, ...]:
        """Return the file."""
        return (self.path,)

    def secrets(self) -> tuple[Path, ...]:
        """Return none."""
        return ()

    def notes(self) -> list[StoreRemark]:
        """Return none."""
        return []

    def _signature(self) -> Signature | None:
        try:
            status = self.path.stat()
        except (OSError, ValueError):  # ValueError: a null character in the path, which load() reports
            return None
        rights = status.st_mode, status.st_uid, status.st_gid
        return status.st_mtime_ns, status.st_size, status.st_ino, *rights
