import socket
from ipaddress import ip_address

import pytest

from overlay.cli.echo import IcmpSocket
from overlay.cli.exits import Failure
from tests.netns.topology import Lab, missing_requirement

LOOPBACKS = [("127.0.0.1", "127.0.0.2"), ("::1", "::1")]


@pytest.fixture(autouse=True)
def _permission():
    """Datagram ICMP sockets are often forbidden on a host; a namespace of our own allows them."""
    if missing_requirement() is not None:
        yield
        return
    with Lab() as lab:
        namespace = lab.namespace("echo")
        namespace.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        with namespace.entered():
            yield


@pytest.fixture(params=LOOPBACKS, ids=["IPv4", "IPv6"])
def addresses(request):
    own, peer = map(ip_address, request.param)
    if own.version == 6:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6 on the loopback interface")
    return own, peer


@pytest.fixture(params=["raw", "datagram"])
def echo(request, addresses, monkeypatch):
    if request.param == "datagram":
        real = socket.socket

        def refuse_raw(family, kind, protocol):
            if kind & 0xF == socket.SOCK_RAW:
                raise PermissionError(1, "Operation not permitted")
            return real(family, kind, protocol)

        # The kernel's refusal, not a module of ours.
        monkeypatch.setattr("socket.socket", refuse_raw)
    try:
        echo = IcmpSocket(*addresses)
    except Failure as failure:
        pytest.skip(f"{request.param} ICMP sockets are not permitted here: {failure}")
    yield echo
    echo.close()


def receive(echo):
    for _ in range(100):  # the requests themselves arrive as well, on the loopback interface
        sequence = echo.receive(1.0)
        if sequence is not None:
            return sequence
    return None


def test_each_request_is_answered(echo):
    for sequence in (1, 2, 65535):
        echo.send(sequence)

        assert receive(echo) == sequence


def test_echoes_of_another_ping_are_no_replies(echo, addresses):
    other = IcmpSocket(*addresses)
    try:
        other.send(7)
        echo.send(8)

        assert receive(echo) == 8
        assert receive(other) == 7
    finally:
        other.close()


def test_without_a_reply_the_wait_ends(echo):
    assert echo.receive(0.01) is None


def test_an_address_that_is_not_on_this_host_gets_a_sentence():
    with pytest.raises(Failure) as failure:
        IcmpSocket(ip_address("192.0.2.77"), ip_address("127.0.0.1"))

    assert failure.value.message in {
        "no echo can be sent from 192.0.2.77 to 127.0.0.1: Cannot assign requested address",
        "no echo request can be sent: run as root with CAP_NET_RAW",
    }
