from __future__ import annotations

import os

import pytest

from overlay.errors import HostError
from overlay.host import records


def test_record_is_read_back_and_nobody_else_may(tmp_path):
    path = tmp_path / "record"

    records.write(path, b"one")
    records.write(path, b"two")

    assert records.read(path, 10) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["record"]


def test_what_is_durable_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Networks of Docker are kept across reboots: before, an empty file in their place kept the agent from starting."""
    path, synced = tmp_path / "record", []
    records.write(path, b"one")
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append((os.fstat(number).st_size, path.read_bytes()))
    )

    records.write(path, b"other", is_durable=True)

    assert synced == [(5, b"one")]
    assert path.read_bytes() == b"other"


def test_record_that_is_not_there_is_none(tmp_path):
    assert records.read(tmp_path / "record", 10) is None


def test_more_than_the_bound_is_told_by_one_byte(tmp_path):
    path = tmp_path / "record"
    records.write(path, b"0123456789")

    assert records.read(path, 4) == b"01234"


@pytest.mark.parametrize("kind", ["writable", "link", "directory", "pipe"])
def test_what_others_may_have_made_is_not_read(tmp_path, kind):
    path = tmp_path / "record"
    match kind:
        case "writable":
            path.write_bytes(b"x")
            path.chmod(0o622)
        case "link":
            path.symlink_to("/etc/passwd")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path, 0o600)

    with pytest.raises(HostError, match="look at it and remove it"):
        records.read(path, 10)


def test_record_that_cannot_be_written_stays_as_it_was(tmp_path):
    with pytest.raises(HostError, match="could not be written"):
        records.write(tmp_path / "none" / "record", b"x")


def test_record_is_removed_and_may_be_gone(tmp_path):
    path = tmp_path / "record"
    records.write(path, b"x")

    records.remove(path)
    records.remove(path)

    assert records.read(path, 1) is None


def test_namespace_is_named_with_its_boot():
    boot, _, number = records.own_namespace().partition("/")

    assert boot
    assert int(number)
