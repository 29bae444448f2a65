from __future__ import annotations

import contextlib
import socket

import pytest

from overlay.host.sockets.queues import SocketQueues
from overlay.host.sockets.reuseport import (
    HANDSHAKES,
    ORDINARY,
    separate_handshakes,
    take_handshakes_only,
    take_nothing,
)

MARK = 0xA5
INDEX = bytes([1, 2, 3, MARK])


def bound(address):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    udp.bind(address)
    return udp


@pytest.fixture(params=[ORDINARY, HANDSHAKES], ids=["by the first", "by the second"])
def group(request):
    """The two sockets of a group, between which a program chooses."""
    with bound(("127.0.0.1", 0)) as first, bound(first.getsockname()) as second:
        assert take_handshakes_only(second)
        assert separate_handshakes((first, second)[request.param], MARK)
        yield first, second


def taken(group, *datagrams):
    """Return which of *datagrams* each socket of *group* gets to read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, group[0].getsockname())
    heard = []
    for each in group:
        heard.append([])
        with contextlib.suppress(BlockingIOError):
            while True:
                heard[-1].append(each.recv(2000))
    return heard


def test_the_type_of_a_message_chooses_the_socket_and_what_is_none_reaches_neither(group):
    messages = [bytes([kind, 0, 0, 0]) + INDEX + bytes(60) for kind in range(256)]

    ordinary, handshakes = taken(group, *messages)

    assert [each[0] for each in handshakes] == [1, 2, 3]
    assert [each[0] for each in ordinary] == [4, 5]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_reserved_bytes_are_zero(group, kind, at):
    message = bytearray([kind, 0, 0, 0, *INDEX, *bytes(60)])
    message[at] = 1

    assert taken(group, message) == [[], []]


def test_the_header_of_a_fragment_may_have_any_numbers(group):
    fragment = bytes([5, 200, 255, 2]) + INDEX + bytes(60)

    assert taken(group, fragment) == [[fragment], []]


@pytest.mark.parametrize("head", [b"\4\0\0\0", b"\5\0\1\1"])
def test_only_indices_with_our_mark_are_let_through(group, head):
    messages = [head + bytes([1, 2, 3, mark]) + bytes(60) for mark in range(256)]

    assert taken(group, *messages) == [[messages[MARK]], []]


@pytest.mark.parametrize("size", range(20))
def test_what_is_shorter_than_any_message_reaches_no_queue_of_packets(group, size):
    fragment = (b"\5\0\1\1" + INDEX + bytes(20))[:size]

    assert taken(group, fragment) == [[fragment] if size > 16 else [], []]


@pytest.mark.parametrize("size", [4, 64, 147, 148, 149, 1400])
def test_handshake_messages_of_a_wrong_size_are_left_to_be_counted(group, size):
    message = b"\1\0\0\0".ljust(size, b"x")

    assert taken(group, message) == [[], [message]]


def test_what_is_none_of_ours_is_counted_apart_from_what_found_no_room(group):
    first, second = group
    first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    noise = [b"\xff" * 100] * 30
    packets = [b"\4\0\0\0" + INDEX + bytes(1000)] * 50

    ordinary, _ = taken(group, *noise, *packets)

    assert SocketQueues(second).dropped() == 30
    assert SocketQueues(first).dropped() == 50 - len(ordinary) > 0


def test_a_socket_that_shares_nothing_is_left_as_it_was():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))

        assert not separate_handshakes(udp)


def test_a_socket_that_is_gone_refuses_nothing():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.close()

    assert not take_handshakes_only(udp)


def test_a_socket_that_takes_nothing_has_nothing_to_read():
    with bound(("127.0.0.1", 0)) as silent:
        take_nothing(silent)
        silent.sendto(b"anybody there?", silent.getsockname())

        with pytest.raises(BlockingIOError):
            silent.recv(100)
