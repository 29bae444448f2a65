from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

import pytest

from overlay.host.sockets.leaving import EARLIER, LATER, Leaving
from overlay.host.sockets.underlay import open_underlay
from tests.ports import free_port

LOOPBACK = ip_address("127.0.0.1")


@pytest.fixture
def leaving():
    with contextlib.closing(Leaving(10.0)) as leaving:
        yield leaving


@pytest.fixture
def port():
    """A port that is free, chosen by number as a peers file does."""
    return free_port(host="0.0.0.0", kind=socket.SOCK_DGRAM)


def is_open(udp):
    return udp.fileno() >= 0


def test_replaced_sockets_stay_open_until_the_forwarder_has_closed_its_own(leaving, port):
    old = open_underlay([LOOPBACK], port)
    leaving.add(old, [], 100.0)

    leaving.close_due(110.0 + LATER - 0.1)
    assert all(map(is_open, leaving.sockets))
    assert leaving.of("wireguard") == old
    leaving.close_due(110.0 + LATER)

    assert not any(map(is_open, old))
    assert leaving.sockets == []


def test_sockets_that_are_come_back_to_are_the_same_and_stay_open(leaving, port):
    old = open_underlay([LOOPBACK], port)
    every = open_underlay([], port, ours=old)
    leaving.add(old, every, 100.0)

    returned = open_underlay([LOOPBACK], port, ours=[*every, *leaving.of("wireguard")])
    leaving.take_back(returned)
    leaving.add(every, returned, 101.0)
    leaving.close_due(200.0)

    assert returned == old
    assert all(map(is_open, old))
    assert not any(map(is_open, every))
    for udp in old:
        udp.close()


def test_a_socket_that_takes_from_its_successor_is_closed_while_the_forwarder_still_reads_it(leaving, port):
    old = open_underlay([LOOPBACK], port)
    every = open_underlay([], port, ours=old)
    leaving.add(old, every, 100.0)

    leaving.close_due(110.0 - EARLIER)

    assert not any(map(is_open, old))
    for udp in every:
        udp.close()
