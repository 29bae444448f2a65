"""Hosts that share a network in an etcd in memory, in simulated time."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

import trio
import trio.testing

from peers.errors import StoreError
from peers.stores.etcd import saved
from peers.stores.etcd.layout import Keys
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.store import EtcdStore
from peers.stores.membership import Member, OwnKeys
from tests.etcd.served import Served
from tests.simulated_time import waiting_for_threads

URL = "//10.0.0.5:2379/office"
DOCUMENT = '[network]\nprefix = "10.244.0.0/16"\n'
KEYS = Keys("office")
IDLE = 0.0005  # seconds in which nothing runs, after which simulated time jumps


def key(name):
    return hashlib.sha256(name.encode()).digest()


class Host:
    """A host that may take part; its disk is *directory*."""

    def __init__(self, network, name, directory, url=URL, public_key=None):
        self.network, self.name, self.directory, self.url = network, name, directory, url
        self.keys = OwnKeys(public_key or key(name))
        self.store = None
        self.address, self.endpoint = f"192.0.2.{len(network.hosts) + 1}", None
        self.scope, self.ended = None, trio.Event()
        self.told = []

    async def start(self):
        """Take part, and return once it has joined."""
        await self.launch()
        await self.store.joined(self.told.append)

    async def launch(self):
        self.store = self.make_store(self.network.served.open)
        member = Member(
            self.name,
            self.keys,
            self.directory,
            Path("/keys/own.key"),
            Path("/keys/own.key.new"),
            lambda _: self.address,
            self.endpoint,
        )
        await self.network.nursery.start(self._run, member)

    def make_store(self, opener):
        return EtcdStore(EtcdLocation.parse("etcd", self.url, ("admin-key",)), opener)

    async def _run(self, member, task_status):
        self.ended = trio.Event()
        try:
            with trio.CancelScope() as self.scope:
                await self.store.attend(member, task_status)
        finally:
            self.ended.set()

    async def saved(self):
        """Return the file on this host's disk, once it has what is known."""
        return await on_disk(self._saved)

    def _saved(self):
        for path in self.directory.glob("office-*.json"):
            found = saved.read(path)
            if found is not None and set(found[0].kvs) == set(self.store.known_keys().values()):
                return path
        return None

    async def kill(self):
        """Stop without saying goodbye, and return once its disk has what it knew."""
        self.scope.cancel()
        await self.ended.wait()

    def table(self):
        return self.store.load()

    @property
    def public_key(self):
        return self.keys.current

    def use_keys(self, current, following=None):
        """Have these files of keys from now on, and the agent, if it runs, answer to them."""
        self.keys = OwnKeys(current, following)
        if self.scope is not None and not self.scope.cancelled_caught:
            self.store.use_keys(self.keys)

    @property
    def subnets(self):
        """What this host thinks it holds."""
        return [str(subnet) for subnet in self.store.standing().subnets]

    def sees(self):
        """Return the subnets of each peer in its table."""
        return {name: [str(subnet) for subnet in peer.subnets] for name, peer in self.table().peers.items()}

    @property
    def state(self):
        return self.store.standing().state

    @property
    def notes(self):
        return list(map(str, self.store.notes()))


class Network:
    """An etcd and its hosts."""

    host_class = Host

    def __init__(self, directory, document=DOCUMENT, at=KEYS.config):
        self.served = Served()
        self.etcd = self.served.etcd
        self.directory = Path(directory)
        self.hosts = {}
        self.nursery = None
        if document is not None:
            self.etcd.put(at, document.encode())

    def host(self, name, **options):
        self.hosts[name] = self.host_class(self, name, self.directory / name, **options)
        return self.hosts[name]

    def run(self, main):
        """Run *main* with this as its argument, in simulated time."""

        async def body():
            async with trio.open_nursery() as self.nursery:
                await self.nursery.start(self.served.run)
                await main(self)
                self.nursery.cancel_scope.cancel()

        clock = trio.testing.MockClock(autojump_threshold=IDLE)
        with waiting_for_threads(clock):
            trio.run(body, clock=clock, strict_exception_groups=True)


async def settle(seconds=2.0):
    """Let that much time pass."""
    await trio.sleep(seconds)


async def on_disk(condition):
    """Return the result of *condition* once it is true.  It waits for a disk, and disks have no simulated time."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        await trio.sleep(0.25)
        await trio.to_thread.run_sync(time.sleep, 0.001)
    return found


async def until(condition, patience=300.0):
    """Wait until *condition* holds."""
    with trio.fail_after(patience):
        while True:
            with contextlib.suppress(StoreError):
                if condition():
                    return
            await trio.sleep(0.25)
