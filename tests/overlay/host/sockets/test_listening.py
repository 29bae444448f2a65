from __future__ import annotations

import os
import socket
import stat

import pytest

from overlay.errors import HostError
from overlay.host.sockets.listening import listening
from peers.listening import TcpPlace, UnixPlace, parse_place
from tests.ports import free_port


def test_port_is_listened_at_inside_the_block_and_at_once_again_after_clients():
    port = free_port()
    place = parse_place(f"127.0.0.1:{port}")

    for _ in range(2):
        with listening(place) as listener:
            assert not listener.getblocking()
            with socket.create_connection(("127.0.0.1", port)):
                listener.accept()[0].close()


def test_port_that_is_taken_is_a_sentence():
    port = free_port()
    place = parse_place(f"127.0.0.1:{port}")

    with (
        listening(place),
        pytest.raises(HostError, match=f"^127.0.0.1:{port} is taken by another program: "),
        listening(place),
    ):
        pass


@pytest.mark.parametrize("text", ["192.0.2.77:9586", "[2001:db8::77]:9586", "[fe80::1%nosuch0]:9586"])
def test_address_that_is_not_here_is_a_sentence(text):
    with (
        pytest.raises(HostError, match=r" is not an address of this host: choose one"),
        listening(parse_place(text)),
    ):
        pass


def test_every_address_of_one_family_leaves_the_other_free():
    port = free_port(host="0.0.0.0")
    with (
        listening(parse_place(f"0.0.0.0:{port}")),
        listening(parse_place(f"[::]:{port}")) as second,
    ):
        assert second.getsockname()[1] == port


def test_unix_socket_has_its_mode_and_goes_at_the_end(tmp_path):
    path = tmp_path / "metrics.sock"

    with listening(UnixPlace(str(path)), 0o660):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_socket_that_nobody_answers_is_replaced_and_one_that_lives_is_not(tmp_path):
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    with listening(UnixPlace(str(path))):
        with (
            pytest.raises(
                HostError, match="is taken by another process, which answers there: end that, or choose"
            ),
            listening(UnixPlace(str(path))),
        ):
            pass
        assert path.exists()


def test_file_that_is_not_a_socket_is_never_removed(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")

    with pytest.raises(HostError, match="is in the way and is not a socket"), listening(UnixPlace(str(path))):
        pass

    assert path.read_text() == "mine"


def test_socket_of_a_successor_is_left(tmp_path):
    path = tmp_path / "metrics.sock"

    with listening(UnixPlace(str(path))):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert os.path.exists(path)


def test_directory_that_is_not_there_is_a_sentence(tmp_path):
    with (
        pytest.raises(HostError, match=r"/none/m\.sock could not be made \(No such file or directory\): "),
        listening(UnixPlace(str(tmp_path / "none" / "m.sock"))),
    ):
        pass


def test_places_of_both_kinds_are_told_apart():
    assert isinstance(parse_place("127.0.0.1:1"), TcpPlace)
    assert isinstance(parse_place("/run/x"), UnixPlace)
