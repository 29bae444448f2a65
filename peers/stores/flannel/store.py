"""The peer table of a network of flannel's in etcd: what load() makes of the config and the leases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peers.errors import StoreError, TableError
from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.members import describe_left_out
from peers.stores.etcd.messages import prefix_end
from peers.stores.etcd.network_store import NetworkStore
from peers.stores.flannel.attendance import Attendance
from peers.stores.flannel.config import read_config
from peers.stores.flannel.lease import Keys
from peers.stores.flannel.members import Snapshot, compose, read_members
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from peers.stores.etcd.connection import Opener
    from peers.stores.etcd.gateway import Gateway
    from peers.stores.etcd.location import EtcdLocation
    from peers.stores.flannel.members import Identity
    from peers.stores.membership import Member, OwnKeys
    from peers.table import Table

# Ours
MOST_REFUSED = 1000  # hosts; each takes a reading of the whole


class FlannelStore(NetworkStore[Snapshot]):
    """The table of the network that *location* names."""

    def __init__(self, location: EtcdLocation, opener: Opener = open_tcp) -> None:
        self.keys = Keys(location.path)
        super().__init__(location, self.keys.config, opener)
        self._refused: dict[Identity, StoreRemark] = {}  # hosts that no table can be made with, and why

    def make_attendance(self, gateway: Gateway, member: Member) -> Attendance:
        """Return the part of *member* in a network of flannel's."""
        return Attendance(self.keys, self.path, gateway, member, self.take, self._missing_config)

    def problems(self, most: int) -> list[TableError]:  # noqa: ARG002  there is at most one
        """Return what is wrong with the config.  Raises StoreError."""
        try:
            self.load()
        except TableError as error:
            return [error]
        return []

    def remarks(self, snapshot: Snapshot) -> list[StoreRemark]:
        """Return which leases are left out."""
        return describe_left_out((*snapshot.members.left_out, *self._refused.values()))

    def _missing_config(self) -> StoreError:
        return StoreError(
            f"there is no network of flannel's at {self.location}, because etcd has no key {self.path}; write its "
            "config there, or correct the URL"
        )

    def make_table(self, snapshot: Snapshot) -> Table:
        """Return the table of *snapshot*, without the hosts that it could not be made with:
        none may harm the others.
        """
        present = {placed.identity for placed in (*snapshot.members.everybody, *snapshot.departed)}
        self._refused = {host: why for host, why in self._refused.items() if host in present}
        own = snapshot.own.identities if snapshot.own is not None else set()
        while True:
            composed = compose(snapshot, self._refused)
            try:
                return self._reader.parse(composed.text)
            except TableError as error:
                host = None if error.line is None else composed.host_at(error.line)
                if host is None or host in own or len(self._refused) >= MOST_REFUSED:
                    raise
                shown = "an agent" if isinstance(host, bytes) else str(host)
                self._refused[host] = StoreRemark(f"the lease of {shown} is left out: {error.problem}")

    def of_keys(self, snapshot: Snapshot, keys: OwnKeys) -> Snapshot:
        """Return *snapshot* as the host of *keys* sees it."""
        if snapshot.own is None:
            return snapshot
        agent = snapshot.own.agent
        told = agent.public_key if agent.public_key in {*keys} else keys.current
        agent = replace(agent, public_key=told, other_key=keys.other_than(told))
        return replace(snapshot, own=replace(snapshot.own, agent=agent))

    async def read_once(self, gateway: Gateway) -> Snapshot:
        """Return the network as it is now, seen from outside."""
        listing = await gateway.range(self.keys.prefix, prefix_end(self.keys.prefix))
        found = next((kv for kv in listing.kvs if kv.key == self.keys.config), None)
        if found is None:
            raise self._missing_config()
        config = read_config(found.value, self.path)
        members = read_members(self.keys, listing.kvs, config)
        if not members.accepted:
            raise StoreError(
                f"{self.location} has a valid config, and no lease yet; "
                f"a host joins with `overlay up --peers {self.location}`"
            )
        return Snapshot(config, members)
