"""The socket for `wg`: one process has it, and one left by a killed process is replaced."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from overlay.errors import HostError
from overlay.host.sockets import uapi_socket


def test_socket_is_made_with_its_directory_and_goes_at_the_end(tmp_path):
    opened = uapi_socket.listen("wg0", tmp_path / "wireguard")

    assert stat.S_IMODE(opened.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.path.parent.stat().st_mode) == 0o755
    assert opened.is_there()
    opened.close()
    assert not opened.path.exists()


def test_second_process_is_told_who_has_it(tmp_path):
    first = uapi_socket.listen("wg0", tmp_path)

    with pytest.raises(HostError, match=rf"answered by another process \({os.getpid()}\)"):
        uapi_socket.listen("wg0", tmp_path)

    assert first.is_there()
    first.close()


def test_what_a_killed_process_left_is_replaced(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "wg0.sock"))
    left.close()

    opened = uapi_socket.listen("wg0", tmp_path)

    assert opened.is_there()
    opened.close()


def test_socket_of_another_is_not_removed(tmp_path):
    first = uapi_socket.listen("wg0", tmp_path)
    first.path.unlink()
    second = uapi_socket.listen("wg0", tmp_path)

    assert not first.is_there()
    first.close()

    assert second.is_there()
    second.close()


def test_directory_that_others_may_write_is_refused(tmp_path):
    tmp_path.chmod(0o777)

    with pytest.raises(HostError, match="can be written by others"):
        uapi_socket.listen("wg0", tmp_path)


def test_file_in_the_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "wireguard").touch()

    with pytest.raises(HostError, match="could not be created"):
        uapi_socket.listen("wg0", tmp_path / "wireguard")
