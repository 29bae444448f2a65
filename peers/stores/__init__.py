"""Where the peer table comes from.  A store is opened by name; adding one is one module and one line here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peers.errors import StoreError
from peers.stores.file import FileStore
from peers.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        """Return whether there is nothing to read any more, because somebody removed it.  As cheap."""


def open_file(location: str) -> FileStore:
    """Return the store of the peers file at the path *location*."""
    return FileStore(Path(location))


STORES: Mapping[str, Callable[[str], Store]] = {
    "file": open_file,
    "memory": MemoryStore,
}
"""What opens each store; the argument says where it is, in the store's own words."""


def open_store(name: str, location: str) -> Store:
    """Return the store *name* at *location*; nothing is read yet.  Raises StoreError for an unknown name."""
    try:
        return STORES[name](location)
    except KeyError:
        raise StoreError(f"there is no store named {name}; accepted are {', '.join(STORES)}") from None
