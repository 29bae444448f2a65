"""Where Docker looks for the driver, and ports that are in use."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from overlay.errors import HostError
from overlay.host.docker_plugin import is_free, listening


def test_socket_is_for_root_alone_and_goes_at_the_end(tmp_path):
    path = tmp_path / "plugins" / "ovl.sock"

    with listening("ovl", path.parent):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert os.listdir(path.parent) == []


def test_socket_of_a_killed_agent_is_replaced_and_that_of_one_that_lives_is_not(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "ovl.sock"))

    with listening("ovl", tmp_path):
        with (
            pytest.raises(HostError, match=r"taken by another process.* another --interface"),
            listening("ovl", tmp_path),
        ):
            pass
        assert (tmp_path / "ovl.sock").exists()


@pytest.mark.parametrize("name", ["overlay", "bridge", "host"])
def test_names_of_docker_s_own_drivers_are_refused(tmp_path, name):
    with pytest.raises(HostError, match=f"{name} is one of Docker's own drivers"), listening(name, tmp_path):
        pass


def test_directory_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(HostError, match=r"ovl\.sock, where Docker looks for this driver, could not be made"),
        listening("ovl", tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_port_that_somebody_listens_at_is_not_free(protocol, kind):
    with socket.socket(socket.AF_INET, kind) as taker:
        taker.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taker.listen(1)
        port = taker.getsockname()[1]
        assert not is_free(protocol, port)
        assert not is_free(protocol, port, "127.0.0.1")
        assert is_free(protocol, port, "127.0.0.2")
    assert is_free(protocol, port)
    assert is_free("sctp", port)
