"""flannel networks in an etcd in memory, and in the real one if it is installed."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing

from peers.stores.etcd.connection import open_tcp
from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from tests.etcd.served import Served
from tests.peers.stores.etcd.conftest import real_etcd
from tests.peers.stores.flannel.flanneld import Flanneld
from tests.peers.stores.flannel.network import KEYS, Host
from tests.simulated_time import waiting_for_threads


class World:
    """An etcd with hosts that have agents, and hosts that have flanneld."""

    def __init__(self, directory):
        self.directory, self.hosts = directory, {}
        self.served = self.gateway = self.nursery = None
        self.url = ""

    def agent(self, name, address=None):
        """Return a host with an agent."""
        self.hosts[name] = Host(self, name, self.directory / name, address=address, url=self.url)
        return self.hosts[name]

    def flanneld(self, address, previous=None):
        """Return a host with flanneld."""
        return Flanneld(self.gateway, address, previous)


class InMemory(World):
    """In simulated time."""

    def run(self, main, config):
        async def body():
            self.served, self.url = Served(), "//10.0.0.5:2379"
            async with trio.open_nursery() as self.nursery:
                await self.nursery.start(self.served.run)
                self.gateway = Gateway(EtcdLocation.parse("etcd", self.url + "/x"), self.served.open)
                await self.gateway.put(KEYS.config, config)
                await main(self)
                await self.gateway.aclose()
                self.nursery.cancel_scope.cancel()

        clock = trio.testing.MockClock(autojump_threshold=0.0005)
        with waiting_for_threads(clock):
            trio.run(body, clock=clock, strict_exception_groups=True)


class Real(World):
    """The real etcd, emptied before."""

    def __init__(self, directory, etcd):
        super().__init__(directory)
        self.url = f"//{etcd.url}"

    open = staticmethod(open_tcp)

    def run(self, main, config):
        async def body():
            self.served = self
            self.gateway = Gateway(EtcdLocation.parse("etcd", self.url + "/x"), patience=60.0)
            with contextlib.suppress(Exception):
                await self.gateway.delete(b"/", b"0")
            with trio.fail_after(240):
                async with trio.open_nursery() as self.nursery:
                    await self.gateway.put(KEYS.config, config)
                    await main(self)
                    self.nursery.cancel_scope.cancel()
            await self.gateway.aclose()

        trio.run(body, strict_exception_groups=True)


@pytest.fixture(params=["memory", "real"])
def world(request, tmp_path):
    """An etcd in memory, then the real one."""
    if request.param == "memory":
        return InMemory(tmp_path)
    return Real(tmp_path, request.getfixturevalue("real_etcd"))


__all__ = ["InMemory", "Real", "real_etcd"]
