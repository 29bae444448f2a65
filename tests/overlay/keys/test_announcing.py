"""The order in which a store is told about keys, and an agent answers to them."""

from __future__ import annotations

import pytest

from overlay.config import Node, Options
from overlay.crypto.keys import PrivateKey
from overlay.keys.announcing import Announcing, own_keys
from overlay.keys.own import next_path
from peers.stores import Location
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.store import EtcdStore
from peers.stores.membership import OwnKeys
from tests.peers.examples import peer, table

OLD, NEW, OTHER = (PrivateKey(bytes([number] * 32)) for number in (1, 2, 3))


class Store(EtcdStore):
    """A store that records what it was told."""

    def __init__(self, keys):
        super().__init__(EtcdLocation.parse("etcd", "//10.0.0.5/office"))
        self._own_keys, self.told = keys, []

    def use_keys(self, keys):
        if keys != self._own_keys:
            self.told.append(keys)
        self._own_keys = keys


class Host:
    """A host whose files and agent go from one state to another."""

    def __init__(self, directory, current, following=None):
        self.options = Options(Location.parse("etcd://10.0.0.5/office"), directory / "key", "overlay0")
        self.store = Store(own_keys(current, following))
        self.announcing = Announcing(self.store)

    def files(self, current, following=None):
        for path, key in ((self.options.key, current), (next_path(self.options.key), following)):
            path.unlink(missing_ok=True)
            if key is not None:
                path.touch(0o600)
                path.write_text(key.to_base64())

    def read(self, current, following=None):
        """Read the files as a reload does, up to the moment from which it can be refused."""
        self.files(current, following)
        self.announcing.withdraw(current, self.options)
        own = peer("paris", "10.244.1.0/24", public_key=current.public)
        self.announcing.settle(Node(current, table(own), own, {}, next_key=following))
        return self.store.told

    def adopt(self):
        self.announcing.announce()
        return self.store.told


def keys(current, following=None):
    return OwnKeys(current.public, None if following is None else following.public)


def test_new_key_is_told_only_when_the_agent_answers_to_it(tmp_path):
    host = Host(tmp_path, OLD)

    assert host.read(OLD, NEW) == []
    assert host.adopt() == [keys(OLD, NEW)]


@pytest.mark.parametrize("left", [OLD, NEW])
def test_withdrawal_is_told_before_the_agent_ceases_to_answer(tmp_path, left):
    host = Host(tmp_path, OLD, NEW)

    assert host.read(left) == [keys(left)]
    assert host.adopt() == [keys(left)]


def test_new_key_that_is_replaced_by_another_is_withdrawn_first(tmp_path):
    host = Host(tmp_path, OLD, NEW)

    assert host.read(OLD, OTHER) == [keys(OLD)]
    assert host.adopt() == [keys(OLD), keys(OLD, OTHER)]


def test_copy_of_the_key_in_use_is_no_new_key(tmp_path):
    host = Host(tmp_path, OLD)

    host.read(OLD, OLD)

    assert host.adopt() == []


def test_file_is_told_nothing():
    announcing = Announcing(object())

    announcing.withdraw(OLD, None)
    announcing.announce()
