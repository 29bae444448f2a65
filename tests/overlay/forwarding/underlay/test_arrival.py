from __future__ import annotations

import socket
import struct

import pytest

from overlay.forwarding.underlay.arrival import Arrival
from overlay.linux import SOL_UDP


def test_control_messages_of_ipv4_are_read():
    local = bytes([192, 0, 2, 7])
    arrival = Arrival(
        [
            (SOL_UDP, 104, struct.pack("=i", 1452)),
            (socket.IPPROTO_IP, socket.IP_TOS, b"\x03"),
            (socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 2, local, local)),
        ]
    )

    assert (arrival.segment, arrival.ecn, arrival.pktinfo) == (1452, 3, (4, local))
    assert arrival.source == [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, local, bytes(4)))]


@pytest.mark.parametrize(("address", "index"), [(b"\x20\x01" + bytes(14), 0), (b"\xfe\x80" + bytes(14), 2)])
def test_control_messages_of_ipv6_are_read_and_only_link_local_keeps_its_interface(address, index):
    arrival = Arrival(
        [
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", 2)),
            (socket.IPPROTO_IPV6, 50, struct.pack("=16sI", address, 2)),
        ]
    )

    assert (arrival.segment, arrival.ecn, arrival.pktinfo) == (0, 2, (6, address))
    assert arrival.source == [(socket.IPPROTO_IPV6, 50, struct.pack("=16sI", address, index))]


@pytest.mark.parametrize("second", range(256))
def test_link_local_is_all_of_fe80_10_and_nothing_else(second):
    local = bytes([0xFE, second]) + bytes(14)
    arrival = Arrival([(socket.IPPROTO_IPV6, 50, struct.pack("=16sI", local, 5))])

    assert arrival.source[0][2] == struct.pack("=16sI", local, 5 if 0x80 <= second <= 0xBF else 0)


@pytest.mark.parametrize("first", [0xFD, 0xFF, 0x7E])
def test_only_fe_begins_a_link_local_address(first):
    local = bytes([first, 0x80]) + bytes(14)
    arrival = Arrival([(socket.IPPROTO_IPV6, 50, struct.pack("=16sI", local, 5))])

    assert arrival.source[0][2] == struct.pack("=16sI", local, 0)


def told(arrival):
    return arrival.segment, arrival.ecn, arrival.pktinfo, arrival.source


def test_a_receive_beside_which_nothing_is_said_is_of_one_unmarked_datagram_from_anywhere():
    assert told(Arrival([])) == (0, 0, None, [])


@pytest.mark.parametrize("level", [socket.IPPROTO_IP, socket.IPPROTO_IPV6, SOL_UDP, socket.SOL_SOCKET])
def test_what_else_the_kernel_says_is_passed_over(level):
    known = {
        SOL_UDP: {104}, socket.IPPROTO_IP: {socket.IP_TOS, 8}, socket.IPPROTO_IPV6: {socket.IPV6_TCLASS, 50},
    }  # fmt: skip

    for kind in (1, 2, 8, 29, 50, 67, 103, 104):
        if kind not in known.get(level, ()):
            assert told(Arrival([(level, kind, bytes([9]) * 20)])) == (0, 0, None, []), kind


@pytest.mark.parametrize(
    ("level", "kind", "expected"),
    [(SOL_UDP, 104, (1453, 0)), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, (0, 1))],
)
def test_a_number_is_four_bytes_whatever_lies_behind_it(level, kind, expected):
    arrival = Arrival([(level, kind, struct.pack("=i", 1453) + bytes([9]) * 4)])

    assert (arrival.segment, arrival.ecn) == expected
