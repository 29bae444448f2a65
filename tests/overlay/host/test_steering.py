from __future__ import annotations

import socket

import pytest

from overlay.host.steering import HANDSHAKES, ORDINARY, refuse_all, steer


def bound(address):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    udp.bind(address)
    return udp


@pytest.mark.parametrize("given", [ORDINARY, HANDSHAKES])
def test_the_first_byte_of_a_datagram_chooses_the_socket(given):
    with bound(("127.0.0.1", 0)) as first, bound(first.getsockname()) as second:
        assert steer((first, second)[given])
        for value in range(256):
            second.sendto(bytes([value]), first.getsockname())

        handshakes = [second.recv(10)[0] for _ in range(3)]
        others = [first.recv(10)[0] for _ in range(253)]

    assert handshakes == [1, 2, 3]
    assert others == [0, *range(4, 256)]


def test_an_empty_datagram_is_no_handshake_message():
    with bound(("127.0.0.1", 0)) as first, bound(first.getsockname()) as second:
        steer(first)
        second.sendto(b"", first.getsockname())

        assert first.recv(10) == b""


def test_a_socket_that_shares_nothing_is_left_as_it_was():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))

        assert not steer(udp)


def test_what_is_to_refuse_all_takes_nothing():
    with bound(("127.0.0.1", 0)) as silent:
        refuse_all(silent)
        silent.sendto(b"anybody there?", silent.getsockname())

        with pytest.raises(BlockingIOError):
            silent.recv(100)
