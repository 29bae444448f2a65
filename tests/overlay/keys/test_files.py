from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from overlay.crypto.keys import PrivateKey
from overlay.errors import KeyFileError
from overlay.keys.files import load_own_key, load_preshared_key, load_private_key

PRIVATE = PrivateKey(bytes(range(32)))


def key_file(path, text, mode=0o600):
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return path


def sentence(call, *arguments):
    """Return the text of the error that *call* raises, which is one sentence."""
    with pytest.raises(KeyFileError) as raised:
        call(*arguments)
    text = str(raised.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


def put(path, kind):
    """Create a thing of *kind* at *path*, and return a function that closes it."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "dead link":
            path.symlink_to(path.with_name("nowhere"))
        case "directory":
            path.mkdir()
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        case "empty":
            path.touch()
        case "other":
            path.write_bytes(b"\xff")
        case "link to a file":
            path.with_name("target").write_text("abc")
            path.symlink_to(path.with_name("target"))


KINDS = (
    "pipe",
    "socket",
    "dead link",
    "directory",
    "link to a device",
    "huge",
    "empty",
    "other",
    "link to a file",
)


def test_private_key_is_read_with_the_line_end_that_keygen_writes(tmp_path):
    path = key_file(tmp_path / "key", PRIVATE.to_base64() + "\n")

    assert load_private_key(path) == (PRIVATE, [])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660])
def test_private_key_that_others_can_use_gets_a_warning_with_the_remedy(tmp_path, mode):
    path = key_file(tmp_path / "key", PRIVATE.to_base64(), mode)

    key, warnings = load_private_key(path)

    assert key == PRIVATE
    assert warnings == [f"{path} can be read by others: run `chmod 600 {path}`"]


def test_missing_private_key_names_the_command_that_makes_one(tmp_path):
    path = tmp_path / "key"

    assert sentence(load_private_key, path) == (
        f"{path} does not exist: make one with `overlay keygen --key {path}`"
    )


@pytest.mark.parametrize("text", ["", "short", PRIVATE.to_base64()[:-1], "!" * 44, PRIVATE.to_base64() * 2])
def test_file_without_a_private_key_is_refused_and_not_quoted(tmp_path, text):
    path = key_file(tmp_path / "key", text)

    refusal = sentence(load_private_key, path)

    assert refusal.startswith(f"{path} is not a private key: ")
    assert refusal.endswith(f"or replace it with `overlay keygen --key {path} --force`")
    assert len(text) < 5 or text not in refusal


def test_private_key_in_other_than_ascii_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"\xff\xfe" * 22)

    assert sentence(load_private_key, path).startswith(
        f"{path} is not a file with a key: it contains characters that are not base64; "
    )


def test_directory_in_the_place_of_a_private_key_is_refused(tmp_path):
    assert sentence(load_private_key, tmp_path) == f"{tmp_path} is a directory: name another file with --key"


def test_path_that_no_file_can_have_is_refused():
    assert "is not a file with a key" in sentence(load_private_key, Path("a\0b"))


def test_no_key_file_is_no_key(tmp_path):
    assert load_own_key(tmp_path / "key") == (None, [])


# Remedies


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_place_of_a_key_is_not_quoted_and_gets_a_remedy(tmp_path, kind):
    put(path := tmp_path / "key", kind)

    refusal = sentence(load_private_key, path)

    assert refusal.startswith(f"{path} ")
    assert "name another file with --key" in refusal


@pytest.mark.parametrize("kind", KINDS)
def test_a_preshared_key_is_named_elsewhere_in_the_peers_file(tmp_path, kind):
    put(path := tmp_path / "tokyo.psk", kind)

    refusal = sentence(load_preshared_key, path)

    assert "name another file as preshared_key_file in the peers file" in refusal
    assert "--force" not in refusal


def test_nobody_is_told_to_remove_a_directory_or_a_device(tmp_path):
    (tmp_path / "key").mkdir()

    assert "remove it" not in sentence(load_private_key, tmp_path / "key")
    assert "remove it" not in sentence(load_private_key, Path("/dev/null"))


def test_command_of_a_remedy_can_be_pasted_whatever_the_path(tmp_path):
    path = tmp_path / "my key"

    assert sentence(load_private_key, path).endswith(f"make one with `overlay keygen --key '{path}'`")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become someone else")
def test_key_that_may_not_be_read_is_read_by_root(tmp_path):
    path = key_file(tmp_path / "key", PRIVATE.to_base64())
    os.seteuid(65534)
    try:
        refusal = sentence(load_private_key, path)
    finally:
        os.seteuid(0)

    assert (
        refusal == f"{path} cannot be read: permission denied; run as root, or name another file with --key"
    )


def test_a_shortage_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    path = tmp_path / "private.key"
    path.write_text("x")

    def fail(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("overlay.keys.files.read_regular", fail)

    with pytest.raises(KeyFileError, match="raise the limit"):
        load_own_key(path)
