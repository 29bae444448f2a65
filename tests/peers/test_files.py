from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from peers.files import UnfitFileError, read_regular

ROOT = Path(__file__).parents[2]


def test_file_is_read_with_its_status(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    path.chmod(0o640)

    data, status = read_regular(path, 3_000_000)

    assert data == b"x" * 3_000_000
    assert status.st_mode & 0o777 == 0o640


def test_file_beyond_the_bound_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(UnfitFileError, match="has more than 100 bytes"):
        read_regular(path, 100)


def test_file_that_grows_or_tells_no_size_is_refused_beyond_the_bound():
    with pytest.raises(UnfitFileError, match="has more than 10 bytes"):
        read_regular(Path("/proc/self/maps"), 10)  # 0 bytes, it says


def test_pipe_without_a_writer_is_refused_and_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UnfitFileError, match="is a named pipe, where a regular file is needed"):
        read_regular(tmp_path / "pipe", 100)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_device_is_refused_without_being_opened(path):
    with pytest.raises(UnfitFileError, match="is a device"):
        read_regular(Path(path), 100)


def test_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        with pytest.raises(UnfitFileError, match="is a socket"):
            read_regular(Path("socket"), 100)


def test_link_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")

    assert read_regular(tmp_path / "link", 100)[0] == b"text"


def test_what_the_system_says_comes_out_as_it_is(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 100)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 100)
    with pytest.raises(ValueError, match="null"):
        read_regular(tmp_path / "\0", 100)


def test_nothing_is_left_open(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    code = (
        "import os, sys; from pathlib import Path; from peers.files import UnfitFileError, read_regular\n"
        "for _ in range(200):\n"
        "    read_regular(Path(sys.argv[1]), 100)\n"
        "    try: read_regular(Path('/proc/self/maps'), 1)\n"
        "    except UnfitFileError: pass\n"
    )

    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        cwd=ROOT,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30)),
    )
