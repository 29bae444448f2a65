"""A network in the real etcd, for commands."""

from __future__ import annotations

import itertools

import pytest

from peers.errors import StoreError
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.store import EtcdStore
from tests.peers.stores.etcd.conftest import real_etcd

__all__ = ["real_etcd"]

_numbers = itertools.count()


class Office:
    """A network of this test alone, and the command line for it."""

    def __init__(self, run, etcd):
        self._run = run
        self.name = f"office{next(_numbers)}"
        self.url = f"etcd://{etcd.url}/{self.name}"

    def __call__(self, name, *arguments, code=0, **options):
        result = self._run("network", name, "--peers", self.url, *arguments, **options)
        assert result.exit_code == code, result.output + result.stderr
        return result

    def fails(self, name, *arguments, code=1, **options):
        result = self(name, *arguments, code=code, **options)
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    def table(self, more=""):
        return EtcdStore(
            EtcdLocation.parse("etcd", self.url.removeprefix("etcd:") + more, ("admin-key",))
        ).load()

    def refusal(self, more=""):
        with pytest.raises(StoreError) as caught:
            self.table(more)
        return str(caught.value)


@pytest.fixture
def office(overlay, real_etcd):
    return Office(overlay, real_etcd)
