"""Hosts on which no agent runs.  tests/netns/test_doctor.py breaks real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay.config import Options
from overlay.crypto.keys import PrivateKey, encode_key
from overlay.diagnosis.unstarted import examine
from peers.stores import Location

KEY, OTHER = PrivateKey(bytes(range(32))), PrivateKey(bytes(range(1, 33)))
WRITTEN = KEY.to_base64()


def toml(**changed):
    values = {"public_key": encode_key(KEY.public), "extra": "", "tokyo": ""} | changed
    return f"""
[network]
prefix = "10.244.0.0/16"
port = 40321
[peers.paris]
public_key = "{values["public_key"]}"
subnets = ["10.244.1.0/32"]
{values["extra"]}
[peers.tokyo]
public_key = "{encode_key(OTHER.public)}"
endpoint = "127.0.0.1"
subnets = ["10.244.2.0/24"]
{values["tokyo"]}
"""


@pytest.fixture
def found(tmp_path):
    def examined(text, key=WRITTEN, mode=0o600):
        (tmp_path / "peers.toml").write_text(text)
        if key is not None:
            (tmp_path / "private.key").write_text(key)
            (tmp_path / "private.key").chmod(mode)
        options = Options(Location.parse(str(tmp_path / "peers.toml")), tmp_path / "private.key", "overlay9")
        told = examine(options)
        ours = [each for each in told.findings if str(tmp_path) in str(each)]
        return told.node, [(each.name, str(each)) for each in ours]

    return examined


def test_nothing_is_wrong_with_files_in_order(found):
    assert found(toml()) == ("paris", [])


def test_peers_file_with_a_mistake_is_named_with_its_line(found):
    _, ((name, sentence),) = found(toml(extra="colour = 7"))

    assert name == "peers_file"
    assert "peers.toml, line 8:" in sentence
    assert "colour" in sentence


@pytest.mark.parametrize("text", ["", "\x00\x01", "[peers]\n" * 1000, "[" * 100_000])
def test_garbage_is_a_mistake_in_the_peers_file(found, text):
    _, findings = found(text)

    assert [name for name, _ in findings] == ["peers_file"]
    assert findings[0][1].count("\n") == 0


@pytest.mark.parametrize(
    ("key", "text", "what"),
    [
        (None, toml(), "does not exist"),
        ("nonsense", toml(), "is not a private key"),
        (KEY.to_base64(), toml(public_key=encode_key(PrivateKey(bytes(32 * [7])).public)), "no peer in"),
    ],
)
def test_key_that_is_missing_or_nobodys_is_named(found, key, text, what):
    _, ((name, sentence),) = found(text, key)

    assert name == "own_key"
    assert what in sentence


def test_next_key_that_is_none_is_to_be_aborted(found, tmp_path):
    """Before, the doctor said to make a key in its place, which nobody had asked for."""
    (tmp_path / "private.key.new").write_text("nonsense")

    _, ((name, sentence),) = found(toml())

    assert name == "own_key"
    assert "private.key.new is not a private key" in sentence
    assert f"`overlay rotate-key --abort --key {tmp_path}/private.key --interface overlay9`" in sentence


def test_preshared_key_that_is_missing_is_named_with_the_peer(found):
    node, ((name, sentence),) = found(toml(tokyo='preshared_key_file = "tokyo.psk"'))

    assert (node, name) == ("paris", "key_file")
    assert "tokyo.psk does not exist" in sentence


def test_key_that_others_can_read_is_named_with_the_command(found):
    _, ((name, sentence),) = found(toml(), mode=0o644)

    assert name == "file"
    assert "run `chmod 600" in sentence


def test_directory_in_place_of_the_peers_file_is_one_finding(tmp_path):
    told = examine(Options(Location.parse(str(tmp_path)), Path("/nonexistent"), "overlay9"))

    assert [each.name for each in told.findings] == ["peers_file"]
