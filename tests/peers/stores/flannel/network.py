"""Hosts that share a network of flannel's in an etcd in memory, in simulated time; some of them have flanneld."""

from __future__ import annotations

import json
from pathlib import Path

import trio
import trio.testing

from peers.stores.etcd.location import EtcdLocation
from peers.stores.flannel.lease import locate
from peers.stores.flannel.store import FlannelStore
from peers.stores.membership import Member
from tests.etcd.served import Served
from tests.peers.stores.etcd.network import key, settle, until
from tests.peers.stores.flannel.forms import KEYS, LITERAL, config, lease_key

URL = "//10.0.0.5:2379/coreos.com/network"


class Host:
    """A host with an agent; its disk is *directory*."""

    def __init__(self, network, name, directory, *, address=None, url=URL, public_key=None, endpoint=None):
        self.network, self.name, self.directory, self.url = network, name, directory, url
        self.address = address or f"192.0.2.{len(network.hosts) + 10}"
        self.public_key, self.endpoint = public_key or key(name), endpoint
        self.told = []

    async def start(self):
        """Attend, and return when it has joined."""
        await self.launch()
        await self.store.joined(self.told.append)

    async def launch(self):
        self.store = FlannelStore(
            locate(EtcdLocation.parse("flannel+etcd", self.url)), self.network.served.open
        )
        member = Member(self.name, self.public_key, self.directory, lambda _: self.address, self.endpoint)
        await self.network.nursery.start(self._run, member)

    async def _run(self, member, task_status):
        with trio.CancelScope() as self.scope:
            await self.store.attend(member, task_status)

    async def kill(self):
        """End without a farewell."""
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    def table(self):
        return self.store.load()

    def sees(self):
        """Return the subnets of each peer in its table."""
        return {name: [str(subnet) for subnet in peer.subnets] for name, peer in self.table().peers.items()}

    @property
    def subnets(self):
        return [str(subnet) for subnet in self.store.standing().subnets]

    @property
    def state(self):
        return self.store.standing().state

    @property
    def notes(self):
        return self.store.notes()


class Network:
    """An etcd and its hosts."""

    def __init__(self, directory, value=None):
        self.served = Served()
        self.etcd = self.served.etcd
        self.directory = Path(directory)
        self.hosts = {}
        self.nursery = None
        if value is not None:
            self.etcd.put(KEYS.config, value)

    def host(self, name, **options):
        self.hosts[name] = Host(self, name, self.directory / name, **options)
        return self.hosts[name]

    def flanneld(self, subnet, address, backend="udp", lease=0):
        """Write a lease as flanneld does."""
        self.put(lease_key(subnet), (LITERAL[backend] % address).encode(), lease)

    def put(self, key, value, lease=0):
        """Write a key, as anybody may."""
        self.etcd.put(key, value, lease)
        self.served.tell()

    def delete(self, key):
        """Remove a key, as anybody may."""
        self.etcd.delete(key)
        self.served.tell()

    def leases(self):
        """Return what stands at the key of each subnet."""
        folder = KEYS.prefix + b"subnets/"
        return {
            name.removeprefix(folder).decode(): json.loads(kv.value)
            for name, kv in sorted(self.etcd.keys.items())
            if name.startswith(folder)
        }

    def run(self, main):
        """Run *main*, which is given this, in simulated time."""

        async def body():
            async with trio.open_nursery() as self.nursery:
                await self.nursery.start(self.served.run)
                await main(self)
                self.nursery.cancel_scope.cancel()

        trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0.0005), strict_exception_groups=True)


__all__ = ["KEYS", "LITERAL", "Host", "Network", "config", "key", "lease_key", "settle", "until"]
