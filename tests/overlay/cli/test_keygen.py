import os
import re
import resource
import shlex
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.keys import PrivateKey, encode_key
from tests.hypothesis_profiles import examples
from tests.overlay.keys.test_files import KINDS, put

ROOT = Path(__file__).parents[3]
NOBODY = 65534


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def run_restricted(restrict, *arguments):
    """Run the command line in a separate process, which first calls *restrict*."""
    return subprocess.run(
        [sys.executable, "-m", "overlay", *map(str, arguments)],
        cwd=ROOT,
        preexec_fn=restrict,
        capture_output=True,
        text=True,
        check=False,
    )


def test_keygen_writes_a_private_key_and_prints_its_public_key(overlay, tmp_path):
    result = overlay("keygen", "--key", tmp_path / "key")

    private = PrivateKey.from_base64((tmp_path / "key").read_text().removesuffix("\n"))
    assert result.stdout == encode_key(private.public) + "\n"
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_key_is_for_its_owner_alone_whatever_the_umask(overlay, tmp_path):
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            overlay("keygen", "--key", tmp_path / f"{umask}")
        finally:
            os.umask(before)

        assert mode(tmp_path / f"{umask}") == 0o600


def test_keygen_makes_the_directory_for_its_owner_alone(overlay, tmp_path):
    result = overlay("keygen", "--key", tmp_path / "etc" / "key")

    assert result.exit_code == 0
    assert mode(tmp_path / "etc") == 0o700


def test_keygen_leaves_nothing_else_in_the_directory(overlay, tmp_path):
    directory = tmp_path / "etc"

    for arguments in ((), (), ("--force",)):
        overlay("keygen", "--key", directory / "key", *arguments)

    assert os.listdir(directory) == ["key"]


def test_keygen_never_replaces_a_key(overlay, tmp_path):
    key = tmp_path / "key"
    overlay("keygen", "--key", key)
    old = key.read_text()

    result = overlay("keygen", "--key", key)

    assert key.read_text() == old
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {key} already exists: print its public key with `overlay pubkey --key {key}`, "
        "or replace it with --force\n"
    )


def test_force_is_not_suggested_for_a_link_to_a_key(overlay, tmp_path):
    overlay("keygen", "--key", tmp_path / "target")
    (tmp_path / "key").symlink_to(tmp_path / "target")

    result = overlay("keygen", "--key", tmp_path / "key")

    assert result.exit_code == 2
    assert result.stderr.endswith("or remove that link and create it again\n")


@pytest.mark.parametrize("command", ["pubkey", "keygen"])
@pytest.mark.parametrize("kind", ["missing", *KINDS])
def test_every_remedy_for_a_key_file_works_when_it_is_followed(overlay, tmp_path, command, kind):
    key = tmp_path / "the key"
    put(key, kind)
    if (command, kind) == ("keygen", "missing"):
        return

    said = overlay(command, "--key", key).stderr

    assert said.count("\n") == 1
    if "remove it" in said:
        key.unlink()
    followed = re.findall(r"`overlay (.*?)`", said)
    if followed:
        assert overlay(*shlex.split(followed[0])).exit_code == 0
    else:
        assert said.endswith("name another file with --key\n")
        key = tmp_path / "another"
        assert overlay("keygen", "--key", key).exit_code == 0
    assert overlay("pubkey", "--key", key).exit_code == 0


@examples(30)
@given(st.sampled_from(["file", "empty", "unreadable", "directory", "link", "dead link", "fifo"]))
def test_keygen_without_force_changes_nothing_that_has_the_name(overlay, tmp_path, kind):
    key, target = tmp_path / "key", tmp_path / "target"
    match kind:
        case "file":
            key.write_text("old")
        case "empty":
            key.touch()
        case "unreadable":
            key.touch(mode=0)
        case "directory":
            key.mkdir()
        case "link":
            target.write_text("old")
            key.symlink_to(target)
        case "dead link":
            key.symlink_to(target)
        case "fifo":
            os.mkfifo(key)
    before = key.lstat()

    result = overlay("keygen", "--key", key)

    assert result.exit_code == 2
    after = key.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    if kind == "dead link":
        assert not target.exists()
    for path in (key, target):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_keygen_with_force_replaces_a_key_by_another_file(overlay, tmp_path):
    key = tmp_path / "key"
    overlay("keygen", "--key", key)
    key.chmod(0o644)
    old = key.read_text()
    with key.open() as still_open:
        result = overlay("keygen", "--key", key, "--force")

        assert still_open.read() == old
    assert result.exit_code == 0
    assert key.read_text() != old
    assert mode(key) == 0o600


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("other")])
def test_keygen_with_force_replaces_files_only(overlay, tmp_path, make):
    key = tmp_path / "key"
    make(key)
    before = key.lstat()

    result = overlay("keygen", "--key", key, "--force")

    assert result.exit_code == 1
    assert result.stderr == f"Error: {key} is not a regular file and is not replaced: name another\n"
    assert key.lstat().st_ino == before.st_ino
    assert os.listdir(tmp_path) in (["key", "run"], ["run", "key"])


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_key(overlay, tmp_path):
    directory = tmp_path / "etc"
    key = directory / "key"
    overlay("keygen", "--key", key)
    old = key.read_text()

    # No file of this process may grow: the effect of a full disk, without one.
    result = run_restricted(
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)), "keygen", "--key", key, "--force"
    )

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {key} cannot be written: File too large; make room on that file system, or name "
        "another file\n"
    )
    assert key.read_text() == old
    assert os.listdir(directory) == ["key"]


def test_a_directory_that_may_not_be_written_gets_a_sentence(overlay):
    if os.geteuid() != 0:
        pytest.skip("needs root, to become someone else")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        key = Path(directory) / "key"
        key.write_text("the old key")

        os.seteuid(NOBODY)
        try:
            result = overlay("keygen", "--key", key, "--force")
        finally:
            os.seteuid(0)

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"Error: {key} cannot be written: Permission denied; run as root, or name another file\n"
        )
        assert key.read_text() == "the old key"


def test_a_directory_that_cannot_be_made_gets_a_sentence(overlay, tmp_path):
    (tmp_path / "file").touch()

    result = overlay("keygen", "--key", tmp_path / "file" / "etc" / "key")

    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path}/file/etc cannot be created: Not a directory; see what is in its place, or in "
        "the place of one of its directories, or name another file\n"
    )
