"""Raw sockets of a real host."""

from __future__ import annotations

import socket

import pytest

from overlay.host import icmp_errors
from overlay.host.icmp_errors import open_error_sockets

pytestmark = pytest.mark.netns


def test_errors_come_and_echoes_do_not(lab):
    host = lab.namespace("alone")
    host.run("ip", "link", "set", "lo", "up")
    with host.entered():
        opened = open_error_sockets()
        try:
            assert [each.family for each in opened] == [socket.AF_INET, socket.AF_INET6]
            host.run("ping", "-c1", "-W1", "127.0.0.1")
            host.run("ping", "-c1", "-W1", "::1")
            for address, raw in zip(("127.0.0.1", "::1"), opened, strict=True):
                with pytest.raises(BlockingIOError):
                    raw.recv(2048)
                with socket.socket(raw.family, socket.SOCK_DGRAM) as udp:
                    udp.sendto(b"x", (address, 9))
                raw.settimeout(5)
                message = raw.recv(2048)
                assert message[(message[0] & 15) * 4] == 3 if raw is opened[0] else message[0] == 1
        finally:
            for each in opened:
                each.close()


def test_process_that_may_have_none_has_none(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(icmp_errors.socket, "socket", refuse)
    assert open_error_sockets() == []
