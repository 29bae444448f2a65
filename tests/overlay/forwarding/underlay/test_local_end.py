"""The source address and the marks of datagrams to a peer."""

from __future__ import annotations

import socket
import struct

import pytest

from overlay.forwarding.underlay.local_end import CONTROLS, LocalEnd
from overlay.forwarding.underlay.outer_header import IPV6, TTL_SHIFT, WHOLE
from overlay.linux import SOL_UDP, UDP_SEGMENT

V4, V6 = ("192.0.2.1", 51820), ("2001:db8::1", 51821, 0, 3)
SOURCE = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, b"\xc0\0\2\7", bytes(4)))]
TOS = {2: (socket.IPPROTO_IP, socket.IP_TOS), 4: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
TTL = {2: (socket.IPPROTO_IP, socket.IP_TTL), 4: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}


def number(value):
    return struct.pack("=i", value)


def test_a_peer_is_sent_to_from_where_it_was_heard_until_that_is_forgotten():
    local = LocalEnd()
    assert local.ancillary(V4, 2) == [(*TOS[2], number(2))]

    local.answer_from(SOURCE, (4, bytes([192, 0, 2, 7])))
    assert local.received_source == (4, bytes([192, 0, 2, 7]))
    assert local.ancillary(V4, 2) == [*SOURCE, (*TOS[2], number(2))]

    local.forget_source()
    assert local.ancillary(V4, 2) == [(*TOS[2], number(2))]


@pytest.mark.parametrize("endpoint", [V4, V6])
def test_marks_and_the_size_of_segments_go_beside_what_is_sent(endpoint):
    local = LocalEnd()
    tos, ttl = TOS[len(endpoint)], TTL[len(endpoint)]

    assert local.ancillary(endpoint, 0) == []
    assert local.ancillary(endpoint, 0xB9) == [(*tos, number(0xB9))]
    assert local.ancillary(endpoint, 64 << TTL_SHIFT) == [(*ttl, number(64))]
    assert local.ancillary(endpoint, 3 | 255 << TTL_SHIFT, 1452) == [
        (*tos, number(3)),
        (*ttl, number(255)),
        (SOL_UDP, UDP_SEGMENT, struct.pack("=H", 1452)),
    ]
    assert local.ancillary(endpoint, 0, 65535) == [(SOL_UDP, UDP_SEGMENT, b"\xff\xff")]


def test_for_a_peer_that_is_nowhere_there_are_no_marks():
    assert LocalEnd().ancillary(None, 3, 100) == [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 100))]


def test_control_messages_are_made_once_and_remembered_in_bounds():
    local = LocalEnd()
    for size in range(1, 3 * CONTROLS):
        control = local.ancillary(V4, 1, size)
        assert control == [(*TOS[2], number(1)), (SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
        assert local.ancillary(V4, 1, size) is control
        assert len(local.controls) == (size - 1) % CONTROLS + 1


def test_senders_are_forgotten_together():
    local, sender = LocalEnd(), object()
    local.send_by(WHOLE, sender)
    local.send_by(WHOLE | IPV6, sender)
    assert local.senders == {WHOLE: sender, WHOLE | IPV6: sender}

    local.forget_senders()

    assert local.senders == {}
