"""An agent's part in a network of the overlay's own layout: what its keys say, and the agent's standing in it.
See participant.py for how the keys are followed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from peers.errors import StoreError
from peers.stores.etcd import remarks, saved
from peers.stores.etcd.commands import Commands
from peers.stores.etcd.document import Document, decode_document, read_document
from peers.stores.etcd.leases import Claimant, Tenancy
from peers.stores.etcd.members import Members, Own, Snapshot, read_departed, reading_members
from peers.stores.etcd.participant import Participant
from peers.stores.etcd.tenant import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from peers.addresses import Prefix
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.layout import Keys
    from peers.stores.etcd.members import Placed
    from peers.stores.etcd.signatures import Trust
    from peers.stores.etcd.slices import Slices
    from peers.stores.membership import Member, OwnKeys
    from peers.stores.remark import StoreRemark

# Ours
NO_SUBNET = "this host has no subnet yet"


class Attendance(Participant[Document, Members, Snapshot]):
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
        self._keys, self._path, self._missing = keys, path, missing
        self._run = Commands(gateway.location)
        files = saved.Files(member.directory, keys.name)
        kept = files.read(member.keys)
        self._trust = trust(kept[0].serial if kept is not None else 0)
        endpoints = (member.endpoint,) if member.endpoint is not None else ()
        claimant = Claimant(member.name, member.keys, os.urandom(16).hex(), endpoints, member.encapsulation)
        had = kept[0].subnets if kept is not None else ()
        assigned = self._trust.assigned if self._trust is not None else lambda _: None
        self._tenancy = Tenancy(keys, claimant, had, os.urandom, assigned)
        super().__init__(keys.name, keys.prefix, gateway, member, files, self._tenancy, take)

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
            return f"{self._path} is gone; write it again with {self._run('create')} and `overlay network import`"
        return str(self._missing())

    def reading_members(self, document: Document) -> Slices[Members]:
        """Return who is in the network."""
        return reading_members(self._keys, tuple(self._mirror.kvs.values()), document, self._trust)

    def make_snapshot(self, document: Document, members: Members) -> Snapshot:
        """Return all that a table is made of."""
        claimant, own = self._tenancy.claimant, None
        if self._tenancy.standing is not Standing.LISTED:
            own = Own(
                self._member.name,
                claimant.keys,
                self.told_key() or claimant.told,
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

    def describe_standing(self) -> StoreRemark | None:
        """Return what to do where this host does not take part."""
        tenancy = self._tenancy
        standing, key = tenancy.standing, tenancy.claimant.told
        if (
            standing in {Standing.UNVOUCHED, Standing.TAKEN}
            and (reason := self._describe_objection()) is not None
        ):
            return reason
        return remarks.describe_standing(standing, self._document, self._member, key, self._run)

    def _describe_objection(self) -> StoreRemark | None:
        """Return what to do if the administrator vouches for this host, but not as it is;
        None if it is not vouched for.
        """
        tenancy, members, document = self._tenancy, self._members, self._document
        if self._trust is None or members is None or document is None:
            return None
        own = tenancy.claimant
        obstacle = tenancy.describe_obstacle(members, document)
        if obstacle is not None:
            return remarks.describe_obstacle(self._run, own.told, str(tenancy.assigned), obstacle)
        current = self._current()
        if current is None or self._keys.vouched(own.told) not in self._mirror.kvs:
            return None
        objection = self._trust.objection(current.value)
        return None if objection is None else remarks.describe_objection(self._run, current.value, objection)

    def take_keys(self, keys: OwnKeys, document: Document, members: Members) -> StoreRemark | None:
        """Tell others of the following key where it is vouched for, or the network is not signed."""
        following = keys.following
        problem = self._objection_to(following, members) if following is not None else None
        self._tenancy.claimant = replace(
            self._tenancy.claimant, keys=keys, public_key=following if problem is None else None
        )
        if following is None:
            return None
        listed = next((peer for peer in document.peers.values() if peer.public_key in {*keys}), None)
        if listed is not None:
            return remarks.describe_listed(listed.name, following, self._run)
        if problem == NO_SUBNET:
            return remarks.describe_untold(problem, self._run)
        return (
            None
            if problem is None
            else remarks.describe_unvouched(problem, self._member, following, self._run)
        )

    def told_key(self) -> bytes | None:
        """Return the public key that this host has in etcd, or in the document."""
        keys = self._tenancy.claimant.keys
        if self._tenancy.standing is Standing.LISTED and self._document is not None:
            listed = (peer.public_key for peer in self._document.peers.values())
            return next((each for each in listed if each in {*keys}), None)
        current = self._current()
        return (
            current.value.public_key if current is not None and current.value.public_key in {*keys} else None
        )

    def _current(self) -> Placed | None:
        """Return what this start of this host has written."""
        mine = self._members.of(self._tenancy.claimant.keys) if self._members is not None else []
        return next((each for each in mine if each.value.instance == self._tenancy.claimant.instance), None)

    def _objection_to(self, following: bytes, members: Members) -> str | None:
        """Return why other nodes would not accept this host by its *following* key; None if they would."""
        current = next(iter(members.of(self._tenancy.claimant.keys)), None)
        if self._trust is not None:
            if current is None:
                return NO_SUBNET
            return self._trust.objection(replace(current.value, public_key=following))
        if self._keys.admin in self._mirror.kvs and self._keys.vouched(following) not in self._mirror.kvs:
            return "its public key is not enrolled"  # the others may ask for that
        return None

    def _signature(self) -> bytes | None:
        signature = self._mirror.kvs.get(self._keys.signature)
        return signature.value if signature is not None else None
