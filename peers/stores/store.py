"""What every store can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from peers.errors import TableError
    from peers.stores.remark import StoreRemark
    from peers.table import Table


class Store(Protocol):
    """A place that holds the peer table and may change it at any time."""

    def load(self) -> Table:
        """Return the table as it is now.

        Raises TableError if it is wrong, StoreError if the store is out of reach.  Either way it is then
        known to the store, so that changed() tells of the next change and not of this one again.
        """

    def changed(self) -> bool:
        """Return whether load() would read something new.  Cheap enough to ask every second."""

    def is_absent(self) -> bool:
        """Return whether there is nothing to read any more, because it was removed.  As cheap."""

    def problems(self, most: int) -> list[TableError]:
        """Return what is wrong with the table as it is now, at most *most* problems.  Raises StoreError."""

    def files(self) -> tuple[Path, ...]:
        """Return the files of this host that the table is read from: who can write them decides who is a peer."""

    def secrets(self) -> tuple[Path, ...]:
        """Return the files of this host that give access to the store: no other user may read them."""

    def notes(self) -> list[StoreRemark]:
        """Return what an administrator should know, though the table in force is not affected."""
