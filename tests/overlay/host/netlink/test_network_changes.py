from __future__ import annotations

import contextlib
import socket

import pytest

from overlay.host.netlink.network_changes import NetworkChanges
from overlay.host.netlink.rtnetlink import split_messages
from overlay.host.netlink.watch import WATCHED

pytestmark = pytest.mark.netns


@pytest.fixture
def host(lab):
    host = lab.namespace("host")
    lab.bridge(host, "br0", "192.0.2.1/24")
    with host.entered():
        host.heard = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
    with host.heard:
        host.heard.bind((0, WATCHED))
        host.changes = NetworkChanges()
        yield host


def moves(host, *commands):
    """Return for each command whether it is noticed as a move of the host."""
    said = []
    for command in commands:
        host.run("ip", *command.split())
        said.append(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                for message in split_messages(host.heard.recv(65536)):
                    said[-1] |= host.changes.take(message)
    return said


def test_an_address_counts_once_however_often_it_is_confirmed(host):
    add = "address replace 192.0.2.7/24 dev br0 valid_lft {0} preferred_lft {0}"

    assert moves(host, add.format(100), add.format(200), add.format(300)) == [True, False, False]
    assert moves(host, "address delete 192.0.2.7/24 dev br0") == [True]
    assert moves(host, add.format(100)) == [True]


def test_an_address_of_a_link_alone_does_not_count(host):
    commands = ["link add v0 type veth peer name v1", "link set v0 up", "link set v1 up"]
    commands += ["address add fe80::7/64 dev br0 nodad", "address add 169.254.7.7/16 dev br0 scope link"]

    assert moves(host, *commands) == [False] * 5


def test_a_default_route_counts_once_and_another_route_does_not(host):
    assert moves(host, "route add 10.9.0.0/16 via 192.0.2.254") == [False]
    assert moves(host, "route add default via 192.0.2.254") == [True]
    assert moves(host, "route replace default via 192.0.2.254") == [False]
    assert moves(host, "route add default via 192.0.2.253 table 7") == [False]
    assert moves(host, "route delete default") == [True]


def test_too_many_to_remember_are_forgotten(host):
    for number in range(5000):
        host.changes._note((number,), True)

    assert len(host.changes._known) <= 4096
