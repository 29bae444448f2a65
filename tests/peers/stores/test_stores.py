"""The contract of every store, run over each in the registry and over that for tests; and how one is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peers.errors import StoreError, TableError
from peers.stores import STORES, Location
from peers.stores.memory import MemoryStore
from peers.toml import parse
from tests.peers.examples import peer, render, table

ATTENDED = {  # an agent follows them: tests/peers/stores/etcd/ and flannel/
    "etcd",
    "etcds",
    "flannel+etcd",
    "flannel+etcds",
}
ONE = render(table(peer("paris", "10.244.1.0/24")))
TWO = render(table(peer("paris", "10.244.1.0/24"), peer("rome", "10.244.2.0/24")))
WRONG = ONE + "colour = 1\n"


@pytest.fixture(params=[*(name for name in STORES if name not in ATTENDED), "memory"])
def store_and_write(request, tmp_path):
    """A store that contains ONE and has not been loaded yet, and a function that changes its text."""
    if request.param == "memory":
        store = MemoryStore(ONE)
        return store, store.write
    assert request.param == "file", "add here how a test writes to the new store"
    path = tmp_path / "peers.toml"
    path.write_text(ONE)
    return Location.parse(f"file:{path}").open(), path.write_text


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


def test_a_store_tells_everything_that_is_wrong_up_to_a_number(store_and_write):
    store, write = store_and_write
    assert store.problems(9) == []
    write(WRONG + "taste = 1\n")

    assert [problem.problem.split()[0] for problem in store.problems(9)] == [
        "peers.paris.colour",
        "peers.paris.taste",
    ]
    assert len(store.problems(1)) == 1


def test_a_file_that_cannot_be_read_is_its_one_problem(tmp_path):
    store = Location.parse(str(tmp_path / "none.toml")).open()

    assert ["there is no such file" in str(problem) for problem in store.problems(9)] == [True]
    assert store.files() == (tmp_path / "none.toml",)


def test_a_store_without_a_directory_takes_key_files_from_the_root_alone():
    def names(path):
        return ONE + f'preshared_key_file = "{path}"\n'

    store = MemoryStore(names("/etc/overlay/paris.psk"))
    assert store.load().peers["paris"].preshared_key_file == Path("/etc/overlay/paris.psk")

    store.write(names("paris.psk"))
    remedy = "is 'paris.psk', and these peers come from no directory; write the path from the root"
    with pytest.raises(TableError, match=remedy):
        store.load()
    assert [remedy in str(problem) for problem in store.problems(9)] == [True]


@pytest.mark.parametrize(
    "text", ["peers.toml", "/etc/overlay/peers.toml", "a b/\u00e4:c.toml", "../p:q", "C:peers", ""]
)
def test_a_path_alone_is_that_of_a_peers_file(text):
    location = Location.parse(text)

    assert location == Location.parse(f"file:{text}") == Location("file", text)
    assert str(location) == str(Path(text))


def test_a_file_is_named_from_the_root_for_readers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "peers.toml").write_text(ONE)

    location = Location.parse("file:peers.toml").absolute()

    assert str(location) == f"{tmp_path}/peers.toml"
    monkeypatch.chdir("/")
    assert list(location.open().load().peers) == ["paris"]


def test_a_relative_path_stays_as_it_is_where_the_directory_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert str(Location.parse("peers.toml").absolute()) == "peers.toml"
    os.chdir(tmp_path)


@pytest.mark.parametrize("name", ["etcd:prod", "file:peers.toml"])
def test_a_file_that_is_there_is_that_file_whatever_its_name_looks_like(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(ONE)

    assert list(Location.parse(name).open().load().peers) == ["paris"]


@pytest.mark.parametrize("text", ["consul:prod", "zk://host:2181/overlay", "memory:[network]", "x:\0"])
def test_an_unknown_store_is_refused_with_the_known_ones(text):
    with pytest.raises(
        StoreError,
        match=r"there is no store named .*; accepted are the path of a file and file:, etcd:, etcds:",
    ):
        Location.parse(text)


@pytest.mark.parametrize(
    "text", ["etcd:prod", "etcd://", "etcd://host/", "etcd://host/a/b", "etcds://host/x?ca="]
)
def test_a_place_that_a_store_cannot_have_is_refused(text):
    with pytest.raises(StoreError, match="write "):
        Location.parse(text)


def test_files_that_a_place_names_are_named_from_the_root_for_readers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    location = Location.parse("etcds://h/office?ca=ca.pem&admin-key=admin.pub").absolute()

    assert str(location) == f"etcds://h:2379/office?ca={tmp_path}/ca.pem&admin-key={tmp_path}/admin.pub"
