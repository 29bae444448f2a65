"""When the files of a running node are read again, and the messages about that."""

from __future__ import annotations

import logging

import pytest

from overlay.config import Options, settle
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.finding import Finding
from overlay.errors import ConfigError, HostError
from overlay.reload import ASKED, RETRY_INTERVAL, Reloads
from peers.stores import Location
from peers.stores.file import FileStore
from peers.stores.remark import StoreRemark
from tests.peers.examples import peer, render, table

PRIVATE = PrivateKey(bytes(range(32)))
PARIS = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
TOKYO = peer("tokyo", "10.244.2.0/24")


class Files:
    """A peers file and a key on disk, read by a running node."""

    def __init__(self, directory):
        self.path = directory / "peers.toml"
        self.key = directory / "key"
        self.key.touch(mode=0o600)
        self.key.write_text(PRIVATE.to_base64())
        self.write(PARIS, TOKYO)
        options = Options(Location.parse(str(self.path)), self.key, "overlay0")
        store = FileStore(self.path)
        self.node = settle(store, PRIVATE, options)
        self.reloads = Reloads(store, options)

    def write(self, *peers):
        new = self.path.with_suffix(".new")
        new.write_text(render(table(*peers)))
        new.replace(self.path)

    def reload(self, cause, now):
        """Read as the agent does; return the refusal."""
        try:
            self.node = self.reloads.read(self.node)
        except ConfigError as error:
            self.reloads.refused(error, cause, now)
        else:
            self.reloads.taken(cause, len(self.node.others))
        return self.reloads.error


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_cause_of_a_reload_is_named_by_the_store(files):
    options = Options(Location.parse("etcd://10.0.0.5/office"), files.key, "overlay0")
    reloads = Reloads(FileStore(files.path), options)
    files.write(PARIS, peer("tokyo", "10.244.2.0/24"))

    assert reloads.look(2.0) == "etcd"


def test_finding_of_the_store_has_problem_and_remedy_of_its_own(files):
    """Before, everything went into the problem, under the name of a finding on files."""

    class Remarking(FileStore):
        def notes(self):
            return [StoreRemark("nobody vouches for this host", "run `it`"), StoreRemark("one is left out")]

    options = Options(Location.parse("etcd://10.0.0.5/office"), files.key, "overlay0")

    assert Reloads(Remarking(files.path), options).notes == [
        Finding("store", "nobody vouches for this host", "run `it`"),
        Finding("store", "one is left out", ""),
    ]


def test_preshared_key_file_that_appears_later_is_taken_without_a_change_of_the_peers_file(files, caplog):
    secret = files.key.with_name("x.psk")
    files.write(PARIS, peer("tokyo", "10.244.2.0/24", preshared_key_file=str(secret)))
    assert files.reloads.look(0.0) == "file"
    assert "does not exist" in files.reload("file", 0.0)
    assert files.reloads.look(RETRY_INTERVAL - 1) is None
    assert files.reloads.look(RETRY_INTERVAL) == "retry"
    assert "does not exist" in files.reload("retry", RETRY_INTERVAL)
    assert caplog.text.count("does not exist") == 1

    secret.touch(mode=0o600)
    secret.write_text(PrivateKey(b"\x55" * 32).to_base64())

    assert files.reloads.look(2 * RETRY_INTERVAL) == "retry"
    assert files.reload("retry", 2 * RETRY_INTERVAL) is None
    assert files.node.preshared_keys.keys() == {"tokyo"}
    assert files.reloads.look(1000.0) is None


def test_wrong_peers_file_waits_for_its_next_change(files):
    files.path.write_text("[network]\n")
    assert files.reloads.look(0.0) == "file"
    assert "prefix is missing" in files.reload("file", 0.0)

    assert files.reloads.look(1000.0) is None

    files.write(PARIS, TOKYO)
    assert files.reloads.look(1001.0) == "file"
    assert files.reload("file", 1001.0) is None


def test_changed_private_key_is_said_once_and_not_every_second(files, caplog):
    other = PrivateKey(b"\x77" * 32)
    files.key.write_text(other.to_base64())
    files.write(PARIS, TOKYO, peer("oslo", "10.244.7.0/24"))

    for now in range(10):
        if cause := files.reloads.look(float(now)):
            assert files.reload(cause, float(now)) is None

    assert len(files.node.others) == 2
    assert files.node.private_key == PRIVATE
    assert caplog.text.count("now contains a different key") == 1
    assert other.to_base64() not in caplog.text


def test_refusal_by_another_error_is_news(files, caplog):
    for text in ("port is taken", "port is taken", "address is not there"):
        files.reloads.refused(HostError(text), "retry", 0.0)

    assert caplog.text.count("port is taken") == 1
    assert caplog.text.count("address is not there") == 1


def test_peers_file_that_was_removed_is_said_once_and_so_is_its_return(files, caplog):
    kept = files.path.with_suffix(".kept")
    files.path.rename(kept)
    with caplog.at_level(logging.INFO, "overlay"):
        for now in range(5):
            assert files.reloads.look(float(now)) is None
        (note,) = files.reloads.notes
        assert str(note) == (
            f"{files.path} is gone, and the previous table stays in force until the agent ends: put the file back"
        )

        kept.rename(files.path)
        files.reloads.look(5.0)

    assert files.reloads.notes == []
    assert caplog.text.count("is gone") == 1
    assert caplog.text.count("peers file is back") == 1


def test_of_a_peers_file_that_is_gone_one_thing_is_said(files):
    """Before, both "not loaded" and "is gone" were shown after a SIGHUP, and the old error of a wrong file that was
    removed.
    """
    files.path.rename(kept := files.path.with_suffix(".kept"))
    files.reload("SIGHUP", 0.0)
    for now in range(5):
        files.reloads.look(float(now))

    assert len(files.reloads.notes) == 1
    assert files.reloads.refusal is None

    kept.rename(files.path)
    assert files.reloads.look(5.0) == "file"
    assert "there is no such file" in files.reloads.refusal  # until it is read
    files.reload("file", 5.0)
    assert (files.reloads.refusal, files.reloads.notes) == (None, [])


def test_peers_file_that_is_absent_for_a_moment_is_no_matter(files, caplog):
    files.path.unlink()
    files.reloads.look(0.0)

    files.write(PARIS, TOKYO)

    assert files.reloads.look(1.0) == "file"
    assert files.reloads.notes == []
    assert not caplog.text


def test_reloads_that_were_asked_for_before_one_began_are_done_with_it(files):
    numbers = [files.reloads.ask() for _ in range(3)]
    assert not any(map(files.reloads.is_done, numbers))

    assert files.reloads.begin("file") == ASKED

    assert all(map(files.reloads.is_done, numbers))
    assert files.reloads.begin("file") == "file"
    assert not files.reloads.is_done(files.reloads.ask())


NEW = PrivateKey(bytes([7] * 32))


def put(path, key):
    path.touch(mode=0o600)
    path.write_text(key.to_base64())


def test_next_key_is_taken_when_its_file_comes_and_given_back_when_it_goes(files):
    following = files.key.with_name("key.new")
    put(following, NEW)
    assert files.reloads.look(0.0) == "key"
    assert files.reload("key", 0.0) is None
    assert files.node.private_keys == (PRIVATE, NEW)

    following.unlink()

    assert files.reloads.look(1.0) == "key"
    assert files.reload("key", 1.0) is None
    assert files.node.private_keys == (PRIVATE,)


def test_key_is_replaced_by_the_peers_file_and_a_rename(files):
    following = files.key.with_name("key.new")
    put(following, NEW)
    files.reload("key", 0.0)
    files.write(peer("paris", "10.244.1.0/24", public_key=NEW.public), TOKYO)
    assert files.reload("file", 1.0) is None
    assert files.node.own.name == "paris"
    assert files.node.private_keys == (NEW, PRIVATE)

    following.replace(files.key)

    assert files.reloads.look(2.0) is not None
    assert files.reload("key", 2.0) is None
    assert files.node.private_keys == (NEW,)
    assert files.reloads.notes == []


def test_key_that_is_withdrawn_while_the_peers_file_has_it_leaves_both_in_force(files):
    following = files.key.with_name("key.new")
    put(following, NEW)
    files.reload("key", 0.0)

    following.replace(files.key)

    assert "no peer in" in files.reload("key", 1.0)
    assert files.node.private_keys == (PRIVATE, NEW)


def test_next_key_that_is_garbage_refuses_the_reload_and_is_tried_again(files):
    following = files.key.with_name("key.new")
    following.touch(mode=0o600)
    following.write_text("garbage")

    assert "key.new is not a private key" in files.reload("key", 0.0)
    put(following, NEW)

    assert files.reloads.look(RETRY_INTERVAL) is not None
    assert files.reload("retry", RETRY_INTERVAL) is None
    assert files.node.next_key == NEW
