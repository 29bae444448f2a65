import contextlib
import os

import pytest

from peers.errors import TableError
from peers.stores.file import FileStore
from tests.peers.examples import peer, render, table

ONE = render(table(peer("paris", "10.244.1.0/24")))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text(ONE)
    return path


def test_a_file_renamed_over_the_old_one_is_a_change_though_time_and_size_are_equal(path):
    store = FileStore(path)
    store.load()
    status = path.stat()
    other = path.with_name("new.toml")
    other.write_text(ONE)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))

    other.rename(path)

    assert store.changed()


def test_a_file_written_in_place_is_a_change_though_its_size_is_equal(path):
    store = FileStore(path)
    store.load()
    status = path.stat()

    path.write_text(ONE.replace("paris", "lyons"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    assert store.changed()


def test_a_vanished_file_is_no_change_until_it_is_back(path):
    store = FileStore(path)
    store.load()
    kept = path.rename(path.with_name("kept.toml"))

    assert not store.changed()
    path.write_text(ONE)
    assert store.changed()
    kept.rename(path)
    assert not store.changed()


def test_a_file_that_is_not_there_yet_is_read_when_it_comes(tmp_path):
    store = FileStore(tmp_path / "peers.toml")

    with pytest.raises(TableError, match="there is no such file"):
        store.load()

    assert not store.changed()
    store.path.write_text(ONE)
    assert store.changed()
    assert list(store.load().peers) == ["paris"]


def test_a_file_that_may_be_read_now_is_a_change(path):
    path.chmod(0o000)
    store = FileStore(path)
    store.changed()
    with contextlib.suppress(TableError):  # root may still read it
        store.load()
    assert not store.changed()

    path.chmod(0o644)

    assert store.changed()


def test_a_file_is_absent_when_it_or_its_directory_is_gone(path):
    store = FileStore(path)
    assert not store.is_absent()

    path.unlink()

    assert store.is_absent()
    assert FileStore(path / "below").is_absent()
