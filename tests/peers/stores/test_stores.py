"""The contract of every store, run over each in the registry."""

import pytest

from peers.errors import StoreError, TableError
from peers.stores import STORES, open_store
from peers.toml import parse
from tests.peers.examples import peer, render, table

ONE = render(table(peer("paris", "10.244.1.0/24")))
TWO = render(table(peer("paris", "10.244.1.0/24"), peer("rome", "10.244.2.0/24")))
WRONG = ONE + "colour = 1\n"


@pytest.fixture(params=STORES)
def store_and_write(request, tmp_path):
    """A store that holds ONE and was not loaded yet, and a function that changes its text."""
    if request.param == "memory":
        store = open_store("memory", ONE)
        return store, store.write
    assert request.param == "file", "a new store says here how a test writes to it"
    path = tmp_path / "peers.toml"
    path.write_text(ONE)
    return open_store("file", str(path)), path.write_text


def test_a_store_gives_the_table_that_was_written(store_and_write, tmp_path):
    store, write = store_and_write

    assert store.load() == parse(ONE, tmp_path)
    write(TWO)
    assert store.load() == parse(TWO, tmp_path)


def test_a_store_is_changed_from_a_write_to_the_next_load(store_and_write):
    store, write = store_and_write

    assert store.changed()
    store.load()
    assert not store.changed()
    write(TWO)
    assert store.changed()
    assert store.changed()
    store.load()
    assert not store.changed()


def test_a_wrong_table_is_refused_once_and_the_next_one_read(store_and_write, tmp_path):
    store, write = store_and_write
    write(WRONG)

    with pytest.raises(TableError, match="colour is not known"):
        store.load()

    assert not store.changed()
    write(TWO)
    assert store.changed()
    assert store.load() == parse(TWO, tmp_path)


def test_an_unknown_store_is_refused_with_the_known_ones():
    with pytest.raises(StoreError, match="there is no store named etcd; accepted are file, memory"):
        open_store("etcd", "http://localhost")
