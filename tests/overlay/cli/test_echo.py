import shutil
import socket
import struct
import subprocess
from ipaddress import ip_address

import pytest

from overlay.cli.echo import EXTENDED_ERROR, EchoError, IcmpSocket
from overlay.cli.exits import Failure
from overlay.wire.icmp import Echo
from overlay.wire.icmp_errors import IcmpError
from tests.netns.topology import Lab, missing_requirement

LOOPBACKS = [("127.0.0.1", "127.0.0.2"), ("::1", "::1")]


@pytest.fixture(autouse=True)
def _permission():
    """Datagram ICMP sockets are often forbidden on a host; a separate namespace allows them."""
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

        # The kernel refuses this, not one of our modules.
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


def test_echoes_of_another_ping_are_not_replies(echo, addresses):
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
        "cannot send an echo request from 192.0.2.77 to 127.0.0.1: Cannot assign requested address",
        "cannot send an echo request: run as root with CAP_NET_RAW",
    }


# Errors


REJECTIONS = {  # what nftables answers to an echo request: the ICMP type and code that come back
    4: [("icmp port-unreachable", 3, 3), ("icmp host-unreachable", 3, 1), ("icmp admin-prohibited", 3, 13)],
    6: [
        ("icmpv6 port-unreachable", 1, 4),
        ("icmpv6 no-route", 1, 0),
        ("icmpv6 admin-prohibited", 1, 1),
    ],
}


@pytest.fixture
def reject():
    """Have this namespace answer echo requests with an ICMP error."""
    if missing_requirement() is not None or shutil.which("nft") is None:
        pytest.skip("needs nft and a namespace of its own")

    def set_up(how):
        kind = "icmp type echo-request" if how.startswith("icmp ") else "icmpv6 type echo-request"
        chain = f"chain i {{ type filter hook input priority 0; {kind} reject with {how}; }}"
        subprocess.run(["nft", f"table inet t {{ {chain}; }}"], check=True)

    return set_up


def receive_error(echo):
    for _ in range(100):
        got = echo.receive(1.0)
        if isinstance(got, EchoError):
            return got
    return None


@pytest.mark.parametrize("which", range(3))
def test_an_icmp_error_is_reported_with_the_request_its_sender_and_its_numbers(
    echo, addresses, reject, which
):
    own, peer = addresses
    how, kind, code = REJECTIONS[own.version][which]
    reject(how)

    for sequence in (1, 2, 65535):
        echo.send(sequence)

        error = receive_error(echo)
        assert (error.sequence, error.sender) == (sequence, peer)
        assert (error.error.kind, error.error.code) == (kind, code)


def test_errors_for_the_requests_of_another_ping_are_not_reported(echo, addresses, reject):
    other = IcmpSocket(*addresses)
    reject(REJECTIONS[addresses[0].version][0][0])
    try:
        other.send(7)
        echo.send(8)

        assert receive_error(echo).sequence == 8
        assert echo.receive(0.05) is None
    finally:
        other.close()


def extended_error(origin, *numbers, sender="10.9.0.1"):
    data = EXTENDED_ERROR.pack(113, origin, *numbers, 0)
    return data + struct.pack("=HH4s8x", socket.AF_INET, 0, ip_address(sender).packed)


@pytest.fixture
def closed():
    """An IcmpSocket that reads what a test gives it."""
    echo = IcmpSocket.__new__(IcmpSocket)
    echo._own, echo._is_raw, echo._identifier = ip_address("10.244.1.0"), True, 77
    return echo


REQUEST = Echo(False, 77, 3, b"").build(ip_address("10.244.1.0"), ip_address("10.244.2.0"))


def test_an_error_of_this_host_itself_is_not_an_icmp_error(closed):
    with pytest.raises(OSError, match="No route to host"):
        closed._read_error(REQUEST, [(0, 11, extended_error(1, 0, 0, 0))])


@pytest.mark.parametrize(
    ("quoted", "ancillary"),
    [
        (REQUEST, []),
        (REQUEST, [(0, 11, b"")]),
        (REQUEST, [(0, 11, extended_error(2, 3, 1, 0)[:18])]),
        (REQUEST, [(0, 99, extended_error(2, 3, 1, 0))]),
        (REQUEST[:7], [(0, 11, extended_error(2, 3, 1, 0))]),
        (
            Echo(True, 77, 3, b"").build(*2 * (ip_address("10.244.1.0"),)),
            [(0, 11, extended_error(2, 3, 1, 0))],
        ),
    ],
    ids=["nothing", "empty", "no sender", "another kind", "cut short", "of a reply"],
)
def test_what_tells_no_error_of_a_request_is_passed_over(closed, quoted, ancillary):
    assert closed._read_error(quoted, ancillary) is None


def test_what_the_kernel_tells_of_an_error_is_read(closed):
    error = closed._read_error(REQUEST, [(0, 11, extended_error(2, 3, 4, 1400))])

    assert error == EchoError(3, ip_address("10.9.0.1"), IcmpError(4, 3, 4, 1400))
