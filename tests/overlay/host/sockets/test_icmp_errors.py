"""Raw sockets of a real host."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from overlay.host.sockets import icmp_errors
from overlay.host.sockets.icmp_errors import open_error_sockets, open_icmp

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
                raw.settimeout(60)
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


@pytest.mark.netns
def test_error_comes_from_the_given_address_and_nothing_is_received(lab):
    host, other = lab.namespace("host"), lab.namespace("other")
    lab.veth(host.end("eth0", "192.0.2.1/24"), other.end("eth0", "192.0.2.2/24"))
    with host.entered():
        icmp = open_icmp(ip_address("10.244.1.0"))  # before the address is there
    host.run("ip", "address", "add", "10.244.1.0/32", "dev", "eth0")
    sniffer = other.sniff("eth0")

    icmp.sendto(bytes([3, 1, 0xFC, 0xFE, 0, 0, 0, 0]) + bytes(28), ("192.0.2.2", 0))
    other.run("ping", "-c1", "192.0.2.1")

    sent = [
        frame
        for frame in sniffer.frames()
        if frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 3
    ]
    assert [frame[26:30] for frame in sent] == [bytes([10, 244, 1, 0])]
    with pytest.raises(BlockingIOError):
        icmp.recv(1000)
    icmp.close()
