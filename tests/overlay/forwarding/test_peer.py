"""A peer by itself: what is known of a new one, and from where and with what marks it is sent to."""

from __future__ import annotations

import math
import socket
import struct

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.forwarding.peer import CONTROLS, WIDE, Peer
from overlay.forwarding.underlay.outer_header import TTL_SHIFT
from overlay.linux import SOL_UDP, UDP_SEGMENT
from tests import packets

V4, V6 = ("192.0.2.1", 51820), ("2001:db8::1", 51821, 0, 3)
SOURCE = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, b"\xc0\0\2\7", bytes(4)))]
TOS = {2: (socket.IPPROTO_IP, socket.IP_TOS), 4: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
TTL = {2: (socket.IPPROTO_IP, socket.IP_TTL), 4: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}


def number(value):
    return struct.pack("=i", value)


def test_of_a_new_peer_nothing_is_known_owed_or_counted():
    peer = Peer(7)

    assert (peer.number, peer.encapsulation, peer.clear) == (7, ENCAPSULATIONS["wireguard"], None)
    assert (peer.endpoint, peer.endpoint_address, peer.endpoint_port, peer.socket) == (None, b"", b"", None)
    assert (peer.source, peer.received_source, peer.senders, peer.sources) == ([], None, {}, None)
    assert (peer.keypairs.current, peer.keypairs.next, peer.keypairs.previous) == (None, None, None)
    assert (peer.keepalive, peer.unanswered_since, peer.owed_since, peer.wanted_at) == (0.0, 0.0, 0.0, 0.0)
    assert (peer.last_traffic, peer.last_received, peer.timers) == (-math.inf, 0.0, {})
    assert (peer.is_silent, peer.is_unreachable, peer.reporting, peer.messages) == (False, False, None, None)
    assert (peer.tx_bytes, peer.tx_packets, peer.tx_units) == (0, 0, 0)
    assert (peer.rx_bytes, peer.rx_packets, peer.rx_units) == (0, 0, 0)
    assert peer.drops == {}


def test_the_path_to_a_new_peer_is_wide_and_to_be_asked_for():
    peer = Peer(7)

    assert (peer.path, peer.path_packets, peer.path_mtu, peer.path_due) == (None, 0, WIDE, 0.0)
    assert (peer.is_path_known, peer.omits) == (False, False)
    assert (peer.segment_limit, peer.segment_limit_ends, peer.segment_size) == (WIDE, 0.0, 0)
    assert (peer.sequence, peer.sequence_at) == (None, 0.0)
    assert WIDE > 65535 + 18  # a super-frame


@pytest.mark.parametrize(
    ("name", "has_ports", "lanes"), [("wireguard", True, 0), ("udp", True, 0), ("ipip", False, 0)]
)
def test_a_peer_has_ports_and_lanes_as_its_encapsulation_has(name, has_ports, lanes):
    peer = Peer(1, ENCAPSULATIONS[name])

    assert (peer.has_ports, len(peer.lanes)) == (has_ports, lanes)
    assert peer.peer is peer


def test_each_sender_of_an_encapsulation_is_a_lane_of_its_own():
    peer = Peer(1, ENCAPSULATIONS["vxlan"])

    assert [lane.flow for lane in peer.lanes] == list(range(ENCAPSULATIONS["vxlan"].senders))
    assert {lane.peer for lane in peer.lanes} == {peer}


@pytest.mark.parametrize(
    ("endpoint", "address", "port"),
    [(V4, b"\xc0\0\2\1", b"\xca\x6c"), (V6, b"\x20\1\x0d\xb8" + bytes(11) + b"\1", b"\xca\x6d")],
)
def test_a_peer_that_moved_is_sent_to_from_where_the_routes_say(endpoint, address, port):
    peer = Peer(1)
    peer.move(("198.51.100.1", 1))
    peer.answer_from(SOURCE, "heard")

    peer.move(endpoint)

    assert (peer.endpoint, peer.endpoint_address, peer.endpoint_port) == (endpoint, address, port)
    assert (peer.source, peer.received_source) == ([], None)
    assert peer.ancillary(0) == []


def test_a_peer_is_sent_to_from_where_it_was_heard_until_that_is_forgotten():
    peer = Peer(1)
    peer.move(V4)
    assert peer.ancillary(2) == [(*TOS[2], number(2))]

    peer.answer_from(SOURCE, "heard")
    assert peer.received_source == "heard"
    assert peer.ancillary(2) == [*SOURCE, (*TOS[2], number(2))]

    peer.forget_source()
    assert peer.ancillary(2) == [(*TOS[2], number(2))]


@pytest.mark.parametrize("endpoint", [V4, V6])
def test_marks_and_the_size_of_segments_go_beside_what_is_sent(endpoint):
    peer = Peer(1)
    peer.move(endpoint)
    tos, ttl = TOS[len(endpoint)], TTL[len(endpoint)]

    assert peer.ancillary(0) == []
    assert peer.ancillary(0xB9) == [(*tos, number(0xB9))]
    assert peer.ancillary(64 << TTL_SHIFT) == [(*ttl, number(64))]
    assert peer.ancillary(3 | 255 << TTL_SHIFT, 1452) == [
        (*tos, number(3)),
        (*ttl, number(255)),
        (SOL_UDP, UDP_SEGMENT, struct.pack("=H", 1452)),
    ]
    assert peer.ancillary(0, 65535) == [(SOL_UDP, UDP_SEGMENT, b"\xff\xff")]


def test_a_peer_that_is_nowhere_has_no_marks():
    assert Peer(1).ancillary(3, 100) == [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 100))]


def test_control_messages_are_made_once_and_remembered_in_bounds():
    peer = Peer(1)
    peer.move(V4)
    for size in range(1, 3 * CONTROLS):
        control = peer.ancillary(1, size)
        assert control == [(*TOS[2], number(1)), (SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
        assert peer.ancillary(1, size) is control
        assert len(peer.controls) == (size - 1) % CONTROLS + 1


# In the clear


def test_a_payload_in_the_clear_is_the_prefix_of_its_version_and_the_packet():
    peer = Peer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(7))

    for version, kind in ((4, b"\x08\0"), (6, b"\x86\xdd")):
        packet = packets.udp(b"hello", version=version)
        assert peer.payload(packet) == b"\x20\0" + kind + b"\0\0\0\7" + packet


def test_what_differs_from_payload_to_payload_is_written_into_each():
    peer = Peer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(None, has_sequence=True, has_checksum=True))
    packet = packets.udp(b"hello!")

    first, second, third = (peer.payload(packet) for _ in range(3))

    assert [int.from_bytes(each[8:12], "big") for each in (first, second, third)] == [0, 2**30, 2**31]
    assert all(packets.ones_complement_sum(each) == 0xFFFF for each in (first, second, third))
    assert {each[12:] for each in (first, second, third)} == {packet}


def test_ends_that_are_told_again_go_on_counting_and_others_begin_anew():
    peer = Peer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(None, has_sequence=True))
    packet = packets.udp(b"hello!")
    numbers = [int.from_bytes(peer.payload(packet)[4:8], "big") for _ in range(2)]

    peer.set_ends(Ends(None, has_sequence=True))
    numbers.append(int.from_bytes(peer.payload(packet)[4:8], "big"))
    peer.set_ends(Ends(9, has_sequence=True))
    other = peer.payload(packet)

    assert numbers == [0, 2**30, 2**31]
    assert (other[4:8], other[8:12]) == (b"\0\0\0\x09", bytes(4))
    peer.set_ends(Ends(9))
    assert peer.payload(packet) == b"\x20\0\x08\0\0\0\0\x09" + packet


def test_a_sealed_peer_has_nothing_before_its_packets():
    packet = packets.udp(b"hello")

    assert Peer(1).payload(packet) == packet
