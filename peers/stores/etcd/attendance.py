"""An agent's part in a network of ours: what its keys say, and how it stands in it.  See part.py for how that comes about."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from peers.errors import StoreError
from peers.stores.etcd import remarks, saved
from peers.stores.etcd.document import Document, decode_document, read_document
from peers.stores.etcd.leases import Claimant, Tenancy
from peers.stores.etcd.members import Members, Own, Snapshot, read_departed, read_members
from peers.stores.etcd.part import Part
from peers.stores.etcd.tenant import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.layout import Keys
    from peers.stores.etcd.signatures import Trust
    from peers.stores.membership import Member


class Attendance(Part[Document, Members, Snapshot]):
    """One host in one network.

    *trust* makes what verifies signatures from the number of the last document.  *take* is handed each snapshot, and
    *missing* makes the error of a network that is not there.
    """

    def __init__(
        self,
        keys: Keys,
        path: Path,
        gateway: Gateway,
        member: Member,
        trust: Callable[[int], Trust | None],
        take: Callable[[Snapshot], None],
        missing: Callable[[], StoreError],
    ) -> None:
        self._keys, self._missing = keys, missing
        file = member.directory / f"{keys.name}-{member.public_key[:8].hex()}.json"
        kept = saved.read(file)
        self._trust = trust(kept[0].serial if kept is not None else 0)
        endpoints = (member.endpoint,) if member.endpoint is not None else ()
        claimant = Claimant(
            member.name, member.public_key, os.urandom(16).hex(), endpoints, member.encapsulation
        )
        self._tenancy = Tenancy(keys, claimant, kept[0].subnets if kept is not None else (), os.urandom)
        super().__init__(keys.name, keys.prefix, path, gateway, member, file, kept, self._tenancy, take)

    @property
    def serial(self) -> int:
        """The number of the document, where it is signed."""
        return self._trust.serial if self._trust is not None else 0

    def compared(self) -> list[bytes]:
        """Return the keys of the document and of this host."""
        return [self._keys.config, *(self._keys.node(subnet) for subnet in self._tenancy.subnets[:1])]

    def document_value(self) -> bytes | None:
        """Return the document and its signature."""
        config = self._mirror.kvs.get(self._keys.config)
        if config is None:
            return None
        return config.value + b"\0" + ((self._signature() or b"") if self._trust is not None else b"")

    def read_document(self) -> Document:
        """Return the document, if it can be trusted and read."""
        text = decode_document(self._mirror.kvs[self._keys.config].value, self._path)
        if self._trust is not None:
            objection = self._trust.document_objection(text, self._signature())
            if objection is not None:
                raise StoreError(f"{self._path} is not to be trusted: {objection}")
        return read_document(text, self._path)

    def describe_missing(self, *, was_there: bool) -> str:
        """Return what to do about a document that is not there."""
        if was_there:
            return f"{self._path} is gone; write it again with `overlay network create` and `import`"
        return str(self._missing())

    def read_members(self, document: Document) -> Members:
        """Return who is in the network."""
        return read_members(self._keys, self._mirror.kvs.values(), document, self._trust)

    def make_snapshot(self, document: Document, members: Members) -> Snapshot:
        """Return all that a table is made of."""
        claimant, own = self._tenancy.claimant, None
        if self._tenancy.standing is not Standing.LISTED:
            own = Own(
                self._member.name,
                claimant.public_key,
                self._tenancy.subnets,
                claimant.endpoints,
                claimant.encapsulation,
            )
        departed = read_departed(self._keys, (kv for kv, _ in self._mirror.departed.values()))
        return Snapshot(document, members, own, departed)

    def prefixes(self, document: Document) -> Collection[Prefix]:
        """Return what the overlay carries."""
        return document.network.prefixes

    def seconds(self, document: Document) -> int:
        """Return how long a lease lasts."""
        return document.leases.seconds

    def take_address(self, address: str) -> None:
        """Let others reach this host at *address*."""
        self._tenancy.claimant = replace(self._tenancy.claimant, endpoints=(address,))

    def describe_standing(self) -> str | None:
        """Return what to do where this host takes no part."""
        standing, key = self._tenancy.standing, self._member.public_key
        return remarks.describe_standing(standing, self._document, self._keys.name, key)

    def _signature(self) -> bytes | None:
        signature = self._mirror.kvs.get(self._keys.signature)
        return signature.value if signature is not None else None
