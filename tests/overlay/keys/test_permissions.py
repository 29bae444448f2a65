from __future__ import annotations

import os

import pytest

from overlay.keys import permissions

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files are given away by root")


def describe_writers(path):
    return list(map(str, permissions.describe_writers(path)))


def describe_readers_of(paths):
    return list(map(str, permissions.describe_readers_of(paths)))


@pytest.fixture
def peers(tmp_path):
    """A peers file in a directory, both for their owner alone to write."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    path = folder / "peers.toml"
    path.touch(mode=0o644)
    return path


def test_file_of_its_owner_alone_is_not_worth_a_sentence(peers):
    assert describe_writers(peers) == []


@needs_root
@pytest.mark.parametrize("mode", [0o646, 0o664])
def test_peers_file_that_others_can_write_is_warned_of(peers, mode):
    os.chown(peers, 0, 1000)
    peers.chmod(mode)

    (sentence,) = describe_writers(peers)

    assert sentence.startswith(
        f"{peers} can be written by others, and whoever can change it decides who is in the"
    )
    assert sentence.endswith(f"overlay: run `chmod go-w {peers}`")


def test_folder_that_others_can_write_is_warned_of_unless_it_is_sticky(peers):
    peers.parent.chmod(0o777)
    (sentence,) = describe_writers(peers)
    assert sentence.startswith(f"{peers.parent} can be written by others")

    peers.parent.chmod(0o1777)
    assert describe_writers(peers) == []


def test_folder_above_its_folder_counts_as_well(peers):
    peers.parent.parent.chmod(0o777)

    (sentence,) = describe_writers(peers)

    assert sentence.startswith(f"{peers.parent.parent} can be written by others")


@needs_root
def test_owner_other_than_root_is_named(peers):
    os.chown(peers, 1000, 0)

    (sentence,) = describe_writers(peers)

    assert sentence.startswith(f"{peers} belongs to user 1000, and whoever can change it decides")
    assert sentence.endswith(f"run `chown root {peers}`")


@needs_root
def test_group_of_root_may_write(peers):
    os.chown(peers, 0, 0)
    peers.chmod(0o664)

    assert describe_writers(peers) == []


def test_link_is_followed(peers, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(peers)
    peers.chmod(0o666)

    (sentence,) = describe_writers(link)

    assert sentence.startswith(f"{peers} can be written by others")


def test_file_that_is_not_there_is_somebody_elses_matter(peers, tmp_path):
    peers.unlink()

    assert describe_writers(peers) == []
    assert describe_writers(tmp_path / "\0") == []
    assert describe_readers_of([peers, tmp_path / "\0"]) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_key_that_others_can_read_is_warned_of(tmp_path, mode):
    good, bad = tmp_path / "good.psk", tmp_path / "bad.psk"
    good.touch(mode=0o600)
    bad.touch()
    bad.chmod(mode)

    assert describe_readers_of([good, bad]) == [f"{bad} can be read by others: run `chmod 600 {bad}`"]


def test_command_that_mends_a_file_can_be_pasted_whatever_its_name(tmp_path):
    key = tmp_path / "my key"
    key.touch()
    key.chmod(0o644)

    assert describe_readers_of([key]) == [f"{key} can be read by others: run `chmod 600 '{key}'`"]


@needs_root
def test_link_counts_as_what_it_leads_to(peers, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link.toml"
    link.symlink_to("../etc/peers.toml")
    assert describe_writers(link) == []

    os.lchown(link, 1000, 1000)
    (sentence,) = describe_writers(link)
    assert sentence.startswith(f"{link} belongs to user 1000")

    folder = tmp_path / "folder"
    folder.symlink_to(shared / "other")
    (shared / "other").symlink_to(peers.parent)
    shared.chmod(0o777)
    (sentence,) = describe_writers(folder / "peers.toml")
    assert sentence.startswith(f"{shared} can be written by others")


def test_links_that_lead_to_each_other_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    assert describe_writers(tmp_path / "a") == []
