"""What is common to all peer tables that come from keys in etcd, whatever these look like: how hosts take part,
and what load() reads.

The keys are read and followed by a Participant, in the agent's loop.  load() may run in a thread: it gets a snapshot
that is not changed any more.  Where no agent takes part, as in ``overlay check``, it reads once by itself.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from peers.errors import StoreError
from peers.sections import TableReader
from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.gateway import Gateway, use_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.errors import TableError
    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.etcd.messages import KeyValue
    from peers.stores.etcd.participant import Participant
    from peers.stores.membership import Member, OwnKeys, StoreStanding
    from peers.stores.remark import StoreRemark
    from peers.table import Table

S = TypeVar("S")


class NetworkStore(ABC, Generic[S]):
    """The table of the network that *location* names, made of snapshots *S*.  *config* is the key of its document."""

    def __init__(self, location: EtcdLocation, config: bytes, opener: Opener) -> None:
        self.location = location
        self.path = Path(config.decode())
        """What errors name in the place of a file."""
        self._opener = opener
        self._reader = TableReader(self.path, has_directory=False)
        self._snapshot: S | None = None
        self._loaded: S | None = None
        self._attendance: Participant[Any, Any, S] | None = None
        self._own_keys: OwnKeys | None = None  # of this host, where it takes part

    # What a layout of keys says

    @abstractmethod
    def make_attendance(self, gateway: Gateway, member: Member) -> Participant[Any, Any, S]:
        """Return the part of *member*, which hands its snapshots to take()."""

    @abstractmethod
    def make_table(self, snapshot: S) -> Table:
        """Return the table of *snapshot*.  Raises TableError."""

    @abstractmethod
    def of_keys(self, snapshot: S, keys: OwnKeys) -> S:
        """Return *snapshot* as this host sees it that answers to *keys*, which may have changed since."""

    @abstractmethod
    async def read_once(self, gateway: Gateway) -> S:
        """Return the network as it is now, seen from outside.  Raises StoreError or TableError."""

    @abstractmethod
    def problems(self, most: int) -> list[TableError]:
        """Return what is wrong with the document, at most *most* problems.  Raises StoreError."""

    @abstractmethod
    def remarks(self, snapshot: S) -> list[StoreRemark]:
        """Return what is worth knowing of those who take part, and of the document."""

    # As any store

    def load(self) -> Table:
        """Return the table.  Raises StoreError or TableError."""
        snapshot = self._snapshot
        if snapshot is None or self._attendance is None:
            snapshot = self._read_now()
        self._loaded = snapshot
        return self.make_table(snapshot if self._own_keys is None else self.of_keys(snapshot, self._own_keys))

    def changed(self) -> bool:
        """Return whether anything has changed since the last load()."""
        return self._snapshot is not None and self._snapshot is not self._loaded

    def is_absent(self) -> bool:
        """Return False: an etcd that is silent has not removed anything."""
        return False

    def files(self) -> tuple[Path, ...]:
        """Return the files that the URL names."""
        return self.location.files()

    def secrets(self) -> tuple[Path, ...]:
        """Return those of them that open etcd."""
        return self.location.secrets()

    def notes(self) -> list[StoreRemark]:
        """Return what is worth knowing of etcd, and of what is in it."""
        notes = list(self._attendance.notes()) if self._attendance is not None else []
        return notes + (self.remarks(self._snapshot) if self._snapshot is not None else [])

    # As one that a host takes part in

    async def attend(
        self, member: Member, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take part as *member* until cancelled."""
        opener = self._opener
        if member.open_socket is not None:
            opener = functools.partial(open_tcp, open_socket=member.open_socket)
        gateway = Gateway(self.location, opener)
        self._own_keys = member.keys
        self._attendance = self.make_attendance(gateway, member)
        task_status.started()
        try:
            await self._attendance.run()
        finally:
            with trio.CancelScope(shield=True):
                await gateway.aclose()

    async def joined(self, told: Callable[[str], None]) -> None:
        """Return when there is a table with this host."""
        assert self._attendance is not None
        await self._attendance.joined(told)

    async def leave(self) -> str | None:
        """Give the subnet back."""
        return None if self._attendance is None else await self._attendance.leave()

    def accept(self) -> str | None:
        """Follow etcd again."""
        return None if self._attendance is None else self._attendance.accept()

    def own_keys(self) -> OwnKeys:
        """The public keys of this host."""
        assert self._own_keys is not None
        return self._own_keys

    def use_keys(self, keys: OwnKeys) -> None:
        """Be the host of *keys*."""
        assert self._attendance is not None
        if keys != self._own_keys:
            self._own_keys = keys
            self._attendance.use_keys(keys)

    def key_delay(self) -> str | None:
        """Return why others are not told of the following key."""
        delay = None if self._attendance is None else self._attendance.key_delay
        return None if delay is None else str(delay)

    def standing(self) -> StoreStanding:
        """Return the state of this host in the network."""
        assert self._attendance is not None
        return self._attendance.standing()

    def known_keys(self) -> dict[bytes, KeyValue]:
        """Return the keys of the network as last reported."""
        return {} if self._attendance is None else self._attendance.known_keys

    # Snapshots

    def take(self, snapshot: S) -> None:
        """Let the next load() be of *snapshot*."""
        self._snapshot = snapshot

    def _read_now(self) -> S:
        if trio.lowlevel.in_trio_run():
            raise StoreError(f"{self.location} was not read yet")
        self._snapshot = snapshot = trio.run(use_once, self.location, self._opener, self.read_once)
        return snapshot
