"""Gateways to an etcd in memory, and to the real one where it is installed."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing

from peers.stores.etcd.gateway import Gateway
from peers.stores.etcd.location import EtcdLocation
from tests.etcd.memory import encode
from tests.etcd.real import RealEtcd, is_installed
from tests.etcd.served import Served

URL = "//10.0.0.5:2379/office"


class InMemory:
    """Runs tests on an etcd in memory, in simulated time."""

    def __init__(self):
        self.served = Served()

    def run(self, main, url=URL):
        async def body():
            async with trio.open_nursery() as nursery:
                await nursery.start(self.served.run)
                gateway = Gateway(EtcdLocation.parse("etcd", url), self.served.open)
                await main(gateway)
                await gateway.aclose()
                nursery.cancel_scope.cancel()

        trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


class Real:
    """Runs tests on the real etcd, in an empty part of it; next to other work it may take a while to answer."""

    def __init__(self, etcd):
        self.etcd = etcd

    def run(self, main):
        async def body():
            gateway = Gateway(EtcdLocation.parse("etcd", f"//{self.etcd.url}/office"), patience=60.0)
            with contextlib.suppress(Exception):
                await gateway.delete(b"/", b"0")
            with trio.fail_after(240):
                await main(gateway)
            await gateway.aclose()

        trio.run(body, strict_exception_groups=True)


@pytest.fixture(scope="session")
def real_etcd(tmp_path_factory):
    if not is_installed():
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    etcd = RealEtcd(tmp_path_factory.mktemp("etcd"))
    etcd.start()
    yield etcd
    etcd.stop()


@pytest.fixture(params=["memory", "real"])
def either(request):
    """An etcd in memory, then the real one."""
    if request.param == "memory":
        return InMemory()
    return Real(request.getfixturevalue("real_etcd"))


@pytest.fixture
def in_memory():
    return InMemory()


def compact(gateway, revision):
    """Return a function that compacts the history before *revision*."""
    return gateway._call("/kv/compaction", {"revision": str(revision), "physical": True})


__all__ = ["InMemory", "Real", "compact", "encode"]
