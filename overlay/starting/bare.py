"""A node without a peers file, like wireguard-go: `wg` sets its key and its peers, and nothing is stored.

Addresses, routes, MTU, rules and settings of the host are left to another program, such as wg-quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.amending import amend
from overlay.config import Node, Options
from overlay.crypto.keys import PrivateKey
from overlay.uapi.language import DeviceChange
from peers.peer import Network, Peer
from peers.stores import Location
from peers.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from peers.errors import TableError
    from peers.stores.remark import StoreRemark


class BareStore:
    """The table that `wg` amends: only this node, with a random key until one is set."""

    def __init__(self, interface: str) -> None:
        self._key = PrivateKey.generate(os.urandom)
        own = Peer(interface, self._key.public, by_wg=True)
        self._table = Table(Network(prefixes=()), {own.name: own})

    def first_node(self) -> Node:
        """Return the node before anything is set: without a key, at any free port."""
        (own,) = self._table.peers.values()
        node = Node(self._key, self._table, own, {}, is_bare=True, is_down=True)
        return amend(node, DeviceChange(takes_key=True, listen_port=0))

    def load(self) -> Table:
        """Return the table."""
        return self._table

    def changed(self) -> bool:
        """Return False: the table has no other source that could change it."""
        return False

    def is_absent(self) -> bool:
        """Return False."""
        return False

    def problems(self, most: int) -> list[TableError]:  # noqa: ARG002  a store's signature
        """Return none."""
        return []

    def files(self) -> tuple[Path, ...]:
        """Return none."""
        return ()

    def secrets(self) -> tuple[Path, ...]:
        """Return none."""
        return ()

    def notes(self) -> list[StoreRemark]:
        """Return none."""
        return []


def bare_options(interface: str, wg_directory: Path) -> Options:
    """Return the options of the node of *interface*, whose socket `wg` looks for in *wg_directory*."""
    return Options(
        Location("wg", interface),
        wg_directory / "none",  # no key file
        interface,
        wg_directory=wg_directory,
        is_bare=True,
    )
