from __future__ import annotations

import contextlib
import select
import socket

import pytest

from overlay.host.sockets.queues import SO_TIMESTAMPING, TELL, SocketQueues


@pytest.fixture
def udp():
    """A socket that is bound to the loopback, and its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(("127.0.0.1", 0))
        yield made


def told(queues, udp, count):
    numbers = []
    poll = select.poll()
    poll.register(udp, 0)
    while len(numbers) < count and poll.poll(60_000):
        numbers += queues.departed()
    return numbers


def send(udp, *control):
    udp.sendmsg([b"datagram"], control, 0, udp.getsockname())


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_departures_are_told_of_those_sends_that_ask_and_of_no_other(family, host):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind((host, 0))
        except OSError:
            pytest.skip("this host has no IPv6 loopback")
        queues = SocketQueues(udp)
        assert queues.number_sends()

        send(udp)
        send(udp, TELL)
        send(udp)
        send(udp, TELL)

        assert told(queues, udp, 2) == [0, 1]
        assert queues.departed() == []


def test_numbers_begin_anew(udp):
    queues = SocketQueues(udp)
    queues.number_sends()
    send(udp, TELL)
    told(queues, udp, 1)

    queues.number_sends()
    send(udp, TELL)

    assert told(queues, udp, 1) == [0]


def test_a_socket_that_only_reads_hears_nothing_of_departures(udp):
    queues = SocketQueues(udp)
    queues.number_sends()
    send(udp, TELL)
    told(queues, udp, 1)

    select.select([udp], [], [], 60)
    data, control, _, _ = udp.recvmsg(100, 512)

    assert (data, control) == (b"datagram", [])


def test_after_the_end_the_socket_is_as_it_was(udp):
    before = udp.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING)
    queues = SocketQueues(udp)
    queues.number_sends()

    queues.stop_numbers()

    assert udp.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) == before


def test_nothing_waits_in_a_socket_that_has_sent_nothing(udp):
    queues = SocketQueues(udp)

    assert queues.waiting() == 0
    assert queues.size == udp.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_what_waits_to_leave_is_counted():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.send(bytes(5000))

        assert SocketQueues(one).waiting() >= 5000


def test_datagrams_that_found_no_room_are_counted(udp):
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    queues = SocketQueues(udp)
    assert queues.dropped() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(50):
            sender.sendto(bytes(1000), udp.getsockname())

    received = 0
    with contextlib.suppress(BlockingIOError):
        while udp.recv(2000):
            received += 1

    assert queues.dropped() == 50 - received > 0


def test_a_process_that_may_not_ask_has_no_send_buffer_to_share():
    with socket.socket() as gone:
        closed = gone.fileno()

    class Refused:
        def fileno(self):
            return closed

    assert SocketQueues(Refused()).size == 0
