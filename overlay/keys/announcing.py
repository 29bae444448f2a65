"""Publishes this host's keys in a store in which it takes part, in an order that does not mislead peers.

Others learn of a key only once the agent answers to it, and of its withdrawal before the agent stops answering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.keys.own import load_next_key
from peers.stores.membership import AttendedStore, OwnKeys

if TYPE_CHECKING:
    from overlay.config import Node, Options
    from overlay.crypto.keys import PrivateKey
    from peers.stores.store import Store


class Announcing:
    """Writes the keys of this host to *store*; nothing is written if that is a file."""

    def __init__(self, store: Store) -> None:
        self._store = store if isinstance(store, AttendedStore) else None
        self._settled: OwnKeys | None = None

    def withdraw(self, key: PrivateKey | None, options: Options) -> None:
        """Withdraw the keys whose files are gone.  Raises KeyFileError."""
        if self._store is not None and key is not None:
            self._store.use_keys(
                self._store.own_keys().narrowed(own_keys(key, load_next_key(options.key, options.interface)))
            )

    def settle(self, node: Node) -> None:
        """Record the keys of *node*, which may still be refused."""
        self._settled = own_keys(node.private_key, node.next_key)

    def announce(self) -> None:
        """Publish the keys that were settled last, because the agent answers to them now."""
        if self._store is not None and self._settled is not None:
            self._store.use_keys(self._settled)


def own_keys(key: PrivateKey, following: PrivateKey | None) -> OwnKeys:
    """Return the public keys of the host with these private keys."""
    return OwnKeys(key.public, None if following is None or following == key else following.public)
