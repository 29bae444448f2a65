from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from overlay.host.paths import PathSocket, open_paths
from tests import packets

ENDS = ("192.0.2.1", "192.0.2.2")


@pytest.fixture
def ipv4():
    opened = open_paths()
    yield opened[0]
    for each in opened:
        each.close()


def test_there_is_a_socket_for_each_family(ipv4):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(each) for each in open_paths()]

        assert [each.family for each in opened][:1] == [socket.AF_INET]
        assert {each.family for each in opened} <= {socket.AF_INET, socket.AF_INET6}


def test_the_way_to_this_host_takes_what_its_loopback_does(ipv4):
    assert PathSocket(ipv4).mtu_to(("127.0.0.1", 9)) >= 65535


@pytest.mark.parametrize(("family", "address"), [(0, "127.0.0.1"), (1, "::1")])
def test_no_question_is_ever_sent_even_where_a_packet_may_have_any_size(family, address):
    opened = open_paths()
    if len(opened) <= family:
        pytest.skip("this host has no IPv6")
    with contextlib.ExitStack() as stack:
        for each in opened:
            stack.enter_context(each)
        asked = stack.enter_context(socket.socket(opened[family].family, socket.SOCK_DGRAM))
        asked.bind((address, 0))
        asked.setblocking(False)

        assert PathSocket(opened[family]).mtu_to(asked.getsockname()) >= 65535

        with pytest.raises(BlockingIOError):
            asked.recv(1)


def test_nothing_is_delivered_to_the_port_that_questions_take(ipv4):
    PathSocket(ipv4).mtu_to(("127.0.0.1", 9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"noise", ("127.0.0.1", ipv4.getsockname()[1]))

    with pytest.raises(BlockingIOError):
        ipv4.recv(100)


def test_a_socket_that_is_connected_elsewhere_is_never_needed(ipv4):
    path = PathSocket(ipv4)
    path.mtu_to(("127.0.0.1", 9))

    with pytest.raises(OSError, match="not connected"):
        ipv4.getpeername()
    assert ipv4.getsockname()[0] == "0.0.0.0"


def test_where_there_is_no_way_nothing_is_known(ipv4):
    assert PathSocket(ipv4).mtu_to(("255.255.255.255", 9)) == 0


def test_path_to_an_endpoint_without_a_port_is_known_too():
    ipv4, ipv6 = open_paths()

    with contextlib.closing(ipv4), contextlib.closing(ipv6):
        assert PathSocket(ipv4).mtu_to(("127.0.0.1", 0)) >= 65535
        assert PathSocket(ipv6).mtu_to(("::1", 0, 0, 0)) >= 65535


@pytest.mark.netns
def test_forged_errors_about_its_port_neither_count_nor_hide_an_answer(lab):
    host, other = lab.namespace("host"), lab.namespace("other")
    lab.veth(host.end("eth0", "192.0.2.1/24"), other.end("eth0", "192.0.2.2/24"))
    with host.entered():
        asking = open_paths()
        path = PathSocket(asking[0])
    with other.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with contextlib.ExitStack() as stack:
        for each in (*asking, raw):
            stack.enter_context(each)
        assert path.mtu_to(("192.0.2.2", 9)) == 1500

        raw_error = forged_error(asking[0].getsockname()[1], mtu=600)
        for _ in range(20_000):  # more than an error queue takes
            raw.sendto(raw_error, ("192.0.2.1", 0))

        assert path.mtu_to(("192.0.2.2", 9)) == 1500


def forged_error(port, mtu):
    """Return an ICMP error, fragmentation needed, about a datagram from *port* of 192.0.2.1 to port 9 of 192.0.2.2."""
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1500, 1, 0x4000, 64, 17, 0, *map(socket.inet_aton, ENDS))
    quoted += struct.pack("!4H", port, 9, 1480, 0)
    error = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    return error[:2] + struct.pack("!H", packets.internet_checksum(error)) + error[4:]


@pytest.mark.netns
def test_what_a_router_says_is_known_until_the_kernel_forgets_it(lab):
    host, router, far = (lab.namespace(name) for name in ("host", "router", "far"))
    lab.veth(
        host.end("eth0", "192.0.2.1/24", "2001:db8::1/64"),
        router.end("eth0", "192.0.2.254/24", "2001:db8::fe/64"),
    )
    lab.veth(
        router.end("eth1", "198.51.100.254/24", "2001:db8:1::fe/64"),
        far.end("eth0", "198.51.100.1/24", "2001:db8:1::1/64"),
        mtu=1400,
    )
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "route", "add", "default", "via", "192.0.2.254")
    host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::fe")
    there = [("198.51.100.1", 9), ("2001:db8:1::1", 9, 0, 0)]
    with host.entered():
        paths = [PathSocket(each) for each in open_paths()]
        senders = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]

    assert [path.mtu_to(address) for path, address in zip(paths, there, strict=True)] == [1500, 1500]
    for sender, address in zip(senders, there, strict=True):
        with sender:
            sender.sendto(bytes(1420), address)
    host.run("sleep", "0.2")
    assert [path.mtu_to(address) for path, address in zip(paths, there, strict=True)] == [1400, 1400]
    for version in ("-4", "-6"):
        host.run("ip", version, "route", "flush", "cache")
    assert [path.mtu_to(address) for path, address in zip(paths, there, strict=True)] == [1500, 1500]
    for path in paths:
        path.close()
