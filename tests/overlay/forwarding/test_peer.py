"""A peer by itself: what is known of a new one, and what its payloads are."""

from __future__ import annotations

import math
import socket
import struct

import pytest

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.forwarding.peer import WIDE, LivePeer
from tests import packets

V4, V6 = ("192.0.2.1", 51820), ("2001:db8::1", 51821, 0, 3)
SOURCE = [(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, b"\xc0\0\2\7", bytes(4)))]


def test_of_a_new_peer_nothing_is_known_owed_or_counted():
    peer = LivePeer(7)

    assert (peer.number, peer.encapsulation, peer.clear) == (7, ENCAPSULATIONS["wireguard"], None)
    assert (peer.endpoint, peer.place, peer.local.socket) == (None, (b"", b""), None)
    assert (peer.local.source, peer.local.received_source, peer.local.senders, peer.unsealed.sources) == (
        [],
        None,
        {},
        None,
    )
    assert (peer.keypairs.current, peer.keypairs.next, peer.keypairs.previous) == (None, None, None)
    assert (
        peer.settings.keepalive,
        peer.contact.unanswered_since,
        peer.contact.owed_since,
        peer.contact.wanted_at,
    ) == (0.0, 0.0, 0.0, 0.0)
    assert (peer.contact.last_traffic, peer.contact.last_received, peer.timers) == (-math.inf, 0.0, {})
    assert (
        peer.contact.is_silent,
        peer.contact.is_unreachable,
        peer.contact.reporting,
        peer.contact.messages,
    ) == (False, False, None, None)
    assert (peer.traffic.tx_bytes, peer.traffic.tx_packets, peer.traffic.tx_units) == (0, 0, 0)
    assert (peer.traffic.rx_bytes, peer.traffic.rx_packets, peer.traffic.rx_units) == (0, 0, 0)
    assert peer.drops == {}


def test_the_path_to_a_new_peer_is_wide_and_to_be_asked_for():
    peer = LivePeer(7)

    assert (peer.path.search, peer.path.packets, peer.path.mtu, peer.path.due) == (None, 0, WIDE, 0.0)
    assert (peer.path.is_known, peer.path.omits) == (False, False)
    assert (peer.unsealed.segment_limit, peer.unsealed.segment_limit_ends, peer.unsealed.segment_size) == (
        WIDE,
        0.0,
        0,
    )
    assert (peer.unsealed.sequence, peer.unsealed.sequence_at) == (-1, 0.0)
    assert WIDE > 65535 + 18  # a super-frame


@pytest.mark.parametrize(
    ("name", "has_ports", "lanes"), [("wireguard", True, 0), ("udp", True, 0), ("ipip", False, 0)]
)
def test_a_peer_has_ports_and_lanes_as_its_encapsulation_has(name, has_ports, lanes):
    peer = LivePeer(1, ENCAPSULATIONS[name])

    assert (peer.has_ports, len(peer.lanes)) == (has_ports, lanes)
    assert peer.peer is peer


def test_each_sender_of_an_encapsulation_is_a_lane_of_its_own():
    peer = LivePeer(1, ENCAPSULATIONS["vxlan"])

    assert [lane.flow for lane in peer.lanes] == list(range(ENCAPSULATIONS["vxlan"].senders))
    assert {lane.peer for lane in peer.lanes} == {peer}


@pytest.mark.parametrize(
    ("endpoint", "address", "port"),
    [(V4, b"\xc0\0\2\1", b"\xca\x6c"), (V6, b"\x20\1\x0d\xb8" + bytes(11) + b"\1", b"\xca\x6d")],
)
def test_a_peer_that_moved_is_sent_to_from_where_the_routes_say(endpoint, address, port):
    peer = LivePeer(1)
    peer.move(("198.51.100.1", 1))
    peer.local.answer_from(SOURCE, (4, bytes([192, 0, 2, 7])))

    peer.move(endpoint)

    assert (peer.endpoint, peer.place) == (endpoint, (address, port))
    assert (peer.local.source, peer.local.received_source) == ([], None)
    assert peer.local.ancillary(endpoint, 0) == []


# Unencrypted


def test_a_payload_in_the_clear_is_the_prefix_of_its_version_and_the_packet():
    peer = LivePeer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(7))

    for version, kind in ((4, b"\x08\0"), (6, b"\x86\xdd")):
        packet = packets.udp(b"hello", version=version)
        assert peer.tunnel.payload(packet) == b"\x20\0" + kind + b"\0\0\0\7" + packet


def test_what_differs_from_payload_to_payload_is_written_into_each():
    peer = LivePeer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(None, has_sequence=True, has_checksum=True))
    packet = packets.udp(b"hello!")

    first, second, third = (peer.tunnel.payload(packet) for _ in range(3))

    assert [int.from_bytes(each[8:12], "big") for each in (first, second, third)] == [0, 2**30, 2**31]
    assert all(packets.ones_complement_sum(each) == 0xFFFF for each in (first, second, third))
    assert {each[12:] for each in (first, second, third)} == {packet}


def test_ends_that_are_told_again_go_on_counting_and_others_begin_anew():
    peer = LivePeer(1, ENCAPSULATIONS["gre"])
    peer.set_ends(Ends(None, has_sequence=True))
    packet = packets.udp(b"hello!")
    numbers = [int.from_bytes(peer.tunnel.payload(packet)[4:8], "big") for _ in range(2)]

    peer.set_ends(Ends(None, has_sequence=True))
    numbers.append(int.from_bytes(peer.tunnel.payload(packet)[4:8], "big"))
    peer.set_ends(Ends(9, has_sequence=True))
    other = peer.tunnel.payload(packet)

    assert numbers == [0, 2**30, 2**31]
    assert (other[4:8], other[8:12]) == (b"\0\0\0\x09", bytes(4))
    peer.set_ends(Ends(9))
    assert peer.tunnel.payload(packet) == b"\x20\0\x08\0\0\0\0\x09" + packet


def test_a_sealed_peer_has_nothing_before_its_packets():
    packet = packets.udp(b"hello")

    assert LivePeer(1).tunnel.payload(packet) == packet
