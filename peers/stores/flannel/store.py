"""The peer table of flannel's network: what load() returns, and how it comes about.

As with a network of ours, the keys are followed in the agent's loop, and load(), which may run in a thread, is handed a
snapshot.  Where no agent attends, as in ``overlay check``, it reads once by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from peers.errors import StoreError, TableError
from peers.sections import Reader
from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.members import describe_left_out
from peers.stores.etcd.messages import prefix_end
from peers.stores.flannel.attendance import Attendance
from peers.stores.flannel.config import read_config
from peers.stores.flannel.lease import Keys
from peers.stores.flannel.members import Snapshot, compose, read_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.etcd.messages import KeyValue
    from peers.stores.flannel.members import Identity
    from peers.stores.membership import Member, Standing
    from peers.table import Table

# Ours
MOST_REFUSED = 1000  # hosts; each takes a reading of the whole


class FlannelStore:
    """The table of the network that *location* names."""

    def __init__(self, location: EtcdLocation, opener: Opener = open_tcp) -> None:
        self.location, self.keys = location, Keys(location.path)
        self.path = Path(self.keys.config.decode())
        """What errors name in the place of a file."""
        self._opener = opener
        self._reader = Reader(self.path, has_directory=False)
        self._snapshot: Snapshot | None = None
        self._loaded: Snapshot | None = None
        self._refused: dict[Identity, str] = {}  # hosts that no table can be made with, and why
        self._attendance: Attendance | None = None

    # As any store

    def load(self) -> Table:
        """Return the table."""
        snapshot = self._snapshot
        if snapshot is None or self._attendance is None:
            snapshot = self._read_now()
        self._loaded = snapshot
        return self._parse(snapshot)

    def changed(self) -> bool:
        """Return whether something was told since the last load()."""
        return self._snapshot is not None and self._snapshot is not self._loaded

    def is_absent(self) -> bool:
        """Return False: an etcd that is silent has not removed anything."""
        return False

    def problems(self, most: int) -> list[TableError]:  # noqa: ARG002  there is at most one
        """Return what is wrong with the config.  Raises StoreError."""
        try:
            self.load()
        except TableError as error:
            return [error]
        return []

    def files(self) -> tuple[Path, ...]:
        """Return the files that the URL names."""
        return self.location.files()

    def secrets(self) -> tuple[Path, ...]:
        """Return those of them that open etcd."""
        return self.location.secrets()

    def notes(self) -> list[str]:
        """Return what is worth knowing of etcd, the config and the leases."""
        notes = list(self._attendance.notes()) if self._attendance is not None else []
        if self._snapshot is not None:
            notes += describe_left_out((*self._snapshot.members.left_out, *self._refused.values()))
        return notes

    # As one that a host takes part in

    async def attend(
        self, member: Member, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take part as *member* until cancelled."""
        gateway = Gateway(self.location, self._opener)
        self._attendance = Attendance(self.keys, self.path, gateway, member, self._take, self._missing_config)
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

    def standing(self) -> Standing:
        """Return how this host stands in the network."""
        assert self._attendance is not None
        return self._attendance.standing()

    def known_keys(self) -> dict[bytes, KeyValue]:
        """Return the keys of the network as they were told last."""
        return {} if self._attendance is None else self._attendance.known_keys

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def _missing_config(self) -> StoreError:
        return StoreError(
            f"there is no network of flannel's at {self.location}, because etcd has no key {self.path}; write its config there, "
            "or correct the URL"
        )

    def _parse(self, snapshot: Snapshot) -> Table:
        """Return the table of *snapshot*, without the hosts that it could not be made with: none may harm the others."""
        present = {placed.identity for placed in (*snapshot.members.everybody, *snapshot.departed)}
        self._refused = {host: why for host, why in self._refused.items() if host in present}
        own = snapshot.own.agent.public_key if snapshot.own is not None else None
        while True:
            composed = compose(snapshot, self._refused)
            try:
                return self._reader.parse(composed.text)
            except TableError as error:
                host = None if error.line is None else composed.host_at(error.line)
                if host is None or host == own or len(self._refused) >= MOST_REFUSED:
                    raise
                shown = "an agent" if isinstance(host, bytes) else str(host)
                self._refused[host] = f"the lease of {shown} is left out: {error.problem}"

    def _read_now(self) -> Snapshot:
        """Return the network as it is now, seen from outside."""
        if trio.lowlevel.in_trio_run():
            raise StoreError(f"{self.location} was not read yet")
        snapshot = trio.run(self._read_once)
        self._snapshot = snapshot
        return snapshot

    async def _read_once(self) -> Snapshot:
        gateway = Gateway(self.location, self._opener)
        try:
            listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
        finally:
            await gateway.aclose()
        found = next((kv for kv in listing.kvs if kv.key == self.keys.config), None)
        if found is None:
            raise self._missing_config()
        config = read_config(found.value, self.path)
        members = read_members(self.keys, listing.kvs, config)
        if not members.accepted:
            raise StoreError(
                f"{self.location} has a valid config, and no lease yet; a host joins with `overlay up --peers {self.location}`"
            )
        return Snapshot(config, members)
