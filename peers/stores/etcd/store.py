"""The peer table of a network in etcd, in the overlay's own layout: what load() makes of the document and the nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from peers.errors import StoreError, TableError
from peers.stores.etcd.attendance import Attendance
from peers.stores.etcd.commands import Commands
from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.document import check_document, decode_document, read_document
from peers.stores.etcd.gateway import use_once
from peers.stores.etcd.layout import Keys, check_network
from peers.stores.etcd.location import is_key
from peers.stores.etcd.members import (
    Snapshot,
    compose,
    describe_left_out,
    find_node,
    problem_alone,
    read_members,
    without,
)
from peers.stores.etcd.messages import prefix_end
from peers.stores.etcd.network_store import NetworkStore
from peers.stores.etcd.remarks import describe_missing
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.document import Document
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.layout import NodeValue
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.etcd.signatures import Trust
    from peers.stores.membership import Member, OwnKeys
    from peers.table import Table

# Ours
ADMIN_KEY = "admin-key"
MOST_READINGS = 1000  # of the whole at once, each without one more of the nodes that contradict others


class EtcdStore(NetworkStore[Snapshot]):
    """The table of the network that *location* names."""

    attendance_class: type[Attendance] = Attendance

    def __init__(self, location: EtcdLocation, opener: Opener = open_tcp) -> None:
        check_network(location.path, location)
        self.keys = Keys(location.path)
        super().__init__(location, self.keys.config, opener)
        self._good: Document | None = None  # the last one that made a table
        self._refusal: TableError | None = None  # of a later one
        self._refused: dict[NodeValue, StoreRemark] = {}  # nodes that no table can be made with, and why

    def make_attendance(self, gateway: Gateway, member: Member) -> Attendance:
        """Return the part of *member* in the network."""
        return self.attendance_class(
            self.keys, self.path, gateway, member, self.make_trust, self.take, self.missing_document
        )

    def make_table(self, snapshot: Snapshot) -> Table:
        """Return the table.  A document that is wrong keeps nodes from nothing: the last good one stays in force."""
        try:
            table = self._parse(snapshot, snapshot.document)
        except TableError as error:
            if self._good is None or self._good is snapshot.document:
                raise
            self._refusal = error
            return self._parse(snapshot, self._good)
        self._good, self._refusal = snapshot.document, None
        return table

    def of_keys(self, snapshot: Snapshot, keys: OwnKeys) -> Snapshot:
        """Return *snapshot* as the host of *keys* sees it."""
        own = snapshot.own
        if own is None or own.keys == keys:
            return snapshot
        told = own.public_key if own.public_key in {*keys} else keys.current
        return replace(snapshot, own=replace(own, keys=keys, public_key=told))

    def problems(self, most: int) -> list[TableError]:
        """Return what is wrong with the document, at most *most* problems.  Raises StoreError."""
        return check_document(
            trio.run(use_once, self.location, self._opener, self._read_document), self.path, most
        )

    def files(self) -> tuple[Path, ...]:
        """Return the files that the URL names, that with the administrator's key among them."""
        admin = self._admin_file()
        return (*super().files(), *([admin] if admin is not None else []))

    def remarks(self, snapshot: Snapshot) -> list[StoreRemark]:
        """Return what is wrong with the document, and who is left out."""
        found = []
        if self._refusal is not None:
            found.append(
                StoreRemark(
                    f"the document in etcd is wrong, and the last good one stays in force: {self._refusal}",
                    f"correct it with {Commands(self.location)('edit')}",
                )
            )
        return found + describe_left_out((*snapshot.members.left_out, *self._refused.values()))

    def make_trust(self, serial: int = 0) -> Trust | None:
        """Return what verifies signatures; None without an administrator's key in the URL.  Raises StoreError."""
        text = dict(self.location.more).get(ADMIN_KEY)
        if text is None:
            return None
        from peers.stores.etcd.signatures import Trust, parse_admin_key  # noqa: PLC0415  few networks are signed

        path = self._admin_file()
        try:
            if path is not None:
                text = path.read_text("ascii")
            return Trust(parse_admin_key(text), self.keys.name, Commands(self.location), serial)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read ({error.strerror}); "
                f"name the file with the administrator's public key as {ADMIN_KEY}"
            ) from None
        except ValueError:
            raise StoreError(
                f"{path or ADMIN_KEY} is not the administrator's public key; copy what `overlay network create --sign` "
                "printed"
            ) from None

    def missing_document(self) -> StoreError:
        """Return the error for a network that has not been created."""
        return StoreError(describe_missing(Commands(self.location)))

    def _admin_file(self) -> Path | None:
        text = dict(self.location.more).get(ADMIN_KEY)
        return None if text is None or is_key(text) else Path(text)

    def _parse(self, snapshot: Snapshot, document: Document) -> Table:
        """Return the table of *snapshot*, without the nodes that it could not be made with:
        none may harm the others.
        """
        whole = replace(snapshot, document=document)
        present = {placed.value for placed in snapshot.members.everybody} | set(snapshot.departed)
        self._refused = {value: why for value, why in self._refused.items() if value in present}
        readings, is_each_tried = 0, False
        while True:
            left = without(whole, self._refused)
            text = compose(document, left.members, left.own, left.departed)
            try:
                return self._reader.parse(text)
            except TableError as error:
                value = None if error.line is None else find_node(text, error.line, left)
                if value is None or readings == MOST_READINGS:
                    raise
                readings += 1
                self._refuse(value, error.problem)
                if not is_each_tried:  # where one is wrong by itself there may be thousands
                    is_each_tried = True
                    for each in (*(placed.value for placed in left.members.accepted), *left.departed):
                        if each is not value and (problem := problem_alone(each, document)) is not None:
                            self._refuse(each, problem)

    def _refuse(self, value: NodeValue, problem: str) -> None:
        self._refused[value] = StoreRemark(
            f"the node {value.name} ({value.subnets[0]}) is left out: {problem}"
        )

    async def read_once(self, gateway: Gateway) -> Snapshot:
        """Return the network as it is now, seen from outside."""
        listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
        kvs = {kv.key: kv for kv in listing.kvs}
        config = kvs.get(self.keys.config)
        if config is None:
            raise self.missing_document()
        trust = self.make_trust()
        text = decode_document(config.value, self.path)
        if trust is not None:
            signature = kvs.get(self.keys.signature)
            problem = trust.document_objection(text, signature.value if signature is not None else None)
            if problem is not None:
                raise StoreError(f"{self.path} is not to be trusted: {problem}")
        document = read_document(text, self.path)
        members = read_members(self.keys, listing.kvs, document, trust)
        if not document.peers and not members.accepted:
            if problems := check_document(text, self.path, 1):
                raise problems[0]
            raise StoreError(
                f"{self.location} has a valid document, and nobody has joined yet; a host joins with `overlay up "
                f"--peers {self.location}`"
            )
        return Snapshot(document, members)

    async def _read_document(self, gateway: Gateway) -> str:
        kvs = (await gateway.range(self.keys.config)).kvs
        if not kvs:
            raise self.missing_document()
        return decode_document(kvs[0].value, self.path)
