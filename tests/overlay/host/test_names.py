from __future__ import annotations

import json
import os
import stat

import pytest

from overlay.host.names import ADDRESSES, LARGEST, Names


def test_what_was_saved_is_found_after_a_restart(tmp_path):
    path = tmp_path / "overlay0.names"
    names = Names(path)
    names.remember("tokyo.example.net", ("192.0.2.2", "2001:db8::2"))
    names.remember("rome.example.net", ("192.0.2.3",))
    names.keep({"tokyo.example.net"})
    names.save()

    found = Names(path)

    assert found.find("tokyo.example.net") == ("192.0.2.2", "2001:db8::2")
    assert found.find("rome.example.net") == ()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_new_writes_nothing(tmp_path):
    path = tmp_path / "overlay0.names"
    names = Names(path)
    names.remember("tokyo.example.net", ("192.0.2.2",))
    names.save()
    before = path.stat()

    names.remember("tokyo.example.net", ("192.0.2.2",))
    names.remember("rome.example.net", ())
    names.save()

    assert path.stat() == before


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path):
    names = Names(tmp_path / "missing" / "overlay0.names")
    names.remember("tokyo.example.net", ("192.0.2.2",))

    names.save()

    assert names.find("tokyo.example.net") == ("192.0.2.2",)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"7",
        b"\xff",
        b"{",
        b'{"a": 7}',
        b'{"a": ["b", 7, null, "fe80::1"]}',
        b"[" * 100_000,
        json.dumps({"a": ["192.0.2.2"], "b": "x" * LARGEST}).encode(),
    ],
)
def test_garbage_is_not_taken(tmp_path, text):
    path = tmp_path / "overlay0.names"
    path.write_bytes(text)

    assert Names(path).find("a") == ()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_taken(tmp_path, mode):
    path = tmp_path / "overlay0.names"
    path.write_text('{"a": ["192.0.2.2"]}')
    assert Names(path).find("a") == ("192.0.2.2",)
    path.chmod(mode)

    assert Names(path).find("a") == ()


def test_a_fifo_or_a_link_is_not_taken(tmp_path):
    (tmp_path / "real").write_text('{"a": ["192.0.2.2"]}')
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")

    assert Names(tmp_path / "link").find("a") == Names(tmp_path / "fifo").find("a") == ()


def test_of_many_addresses_the_first_are_taken(tmp_path):
    path = tmp_path / "overlay0.names"
    path.write_text(json.dumps({"a": [f"192.0.2.{number}" for number in range(99)]}))

    assert len(Names(path).find("a")) == ADDRESSES
