from __future__ import annotations

import contextlib
import socket

import pytest

from overlay.host.paths import PathSocket, open_paths


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


def test_no_answer_leaves_an_address_or_a_port_behind(ipv4):
    PathSocket(ipv4).mtu_to(("127.0.0.1", 9))

    assert ipv4.getsockname() == ("0.0.0.0", 0)


def test_where_there_is_no_way_nothing_is_known(ipv4):
    assert PathSocket(ipv4).mtu_to(("255.255.255.255", 9)) == 0


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
