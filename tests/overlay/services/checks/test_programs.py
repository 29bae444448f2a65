"""What prevents a program from being started, and what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from overlay.services.checks.programs import describe, describe_end, find_obstacle

NOBODY = (65534, 65534)


@pytest.fixture
def folder():
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def put(folder, text, mode=0o755):
    path = folder / "program"
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (b"#!/no/such/interpreter -x\n", 0o755, (
            "its first line names the interpreter /no/such/interpreter, which is missing: install it, or name another")),
        (b"#!/etc/passwd\n", 0o755, (
            "its first line names the interpreter /etc/passwd, which user nobody may not run: name another")),
        (b"#!/bin/sh\r\n", 0o755, "its lines end with CR LF: run `dos2unix {path}`"),
        (b"#!/bin/sh\n", 0o644, "user nobody may not run it: run `chmod 755 {path}`"),
        (b"#!/bin/sh\n", 0o711, "user nobody may not read it, as its interpreter has to: run `chmod 755 {path}`"),
    ],
)  # fmt: skip
def test_program_that_cannot_be_started_is_found_before_it_is_tried(folder, text, mode, said):
    path = put(folder, text, mode)

    assert str(find_obstacle(path, NOBODY)) == said.format(path=path)


def test_path_without_a_program_is_found(folder):
    (folder / "link").symlink_to(folder / "gone")
    closed = folder / "closed"
    closed.mkdir(0o700)
    inside = put(closed, b"#!/bin/sh\n")

    said = {
        folder / "gone": "it is missing: install it, or correct its path",
        put(folder, b"#!/bin/sh\n") / "below": "it is missing: install it, or correct its path",
        folder / "link": "it is a link to a file that is missing: install that, or correct the link",
        folder: "it is not a file: write the path of a program",
        inside: f"user nobody may not enter {closed}: put it elsewhere, or run `chmod o+x {closed}`",
    }
    assert {path: str(find_obstacle(path, NOBODY)) for path in said} == said


@pytest.mark.parametrize(("text", "mode"), [(b"#!/bin/sh\n", 0o755), (b"#! /usr/bin/env -S sh\n", 0o755)])
def test_nothing_is_found_against_a_program_that_starts(folder, text, mode):
    path = put(folder, text, mode)

    assert find_obstacle(path, NOBODY) is None
    assert find_obstacle(path) is None
    assert find_obstacle(Path("/bin/sh"), NOBODY) is None


def test_what_only_the_start_shows_is_described_with_a_remedy(folder):
    path = put(folder, b"no first line\n")
    with pytest.raises(OSError, match="Exec format") as raised:
        subprocess.run([path], check=False)

    remedy = "write the interpreter into its first line, as in #!/bin/sh"
    assert describe(raised.value, path) == f"it is not a program: {remedy}"
    assert "loader" in describe(OSError(errno.ENOENT, os.strerror(errno.ENOENT)), Path("/bin/sh"))
    assert describe(OSError(errno.ENOMEM, "Cannot allocate memory"), path) == "Cannot allocate memory"


def test_end_of_a_program_is_a_status_or_a_signal():
    assert describe_end(3) == "ended with 3"
    assert describe_end(-9) == "was ended by SIGKILL"
    assert describe_end(-40) == "was ended by signal 40"
