from __future__ import annotations

import math
import struct

import pytest

from overlay.forwarding.path.oversize import largest_segment
from overlay.wire.virtio import Offload
from tests import packets
from tests.overlay.wire.test_fragments import reassemble
from tests.sim import World


@pytest.fixture
def pair():
    """Two nodes with a session, and a path with an MTU of 1200 bytes."""
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.received.clear()
    a.peer().path.mtu = 1200
    return world, a, b


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "make",
    [packets.tcp, packets.udp, lambda data, **ip: packets.tcp(data, tcp_options=bytes([1] * 12), **ip)],
)
def test_the_largest_segment_is_that_which_the_kernel_would_make(version, make):
    packet, virtio = packets.as_super_packet(make(bytes(5000), version=version), 1000)
    _, kind, _, segment, start, _ = struct.unpack("<BBHHHH", virtio)

    assert largest_segment(memoryview(packet), Offload(1, kind, 0, segment, start, 0)) == len(
        packets.kernel_segments(packet, virtio)[0]
    )


def test_segments_of_a_super_packet_without_df_are_cut_in_fragments(pair):
    world, a, b = pair
    whole = packets.udp(bytes(2600), source=a.inner(), destination=b.inner())
    packet, virtio = packets.as_super_packet(packets.with_ip_checksum(whole[:6] + b"\0\0" + whole[8:]), 1300)

    a.tun.outgoing.append(virtio + packet)
    world.run(1)

    expected = [segment[20:] for segment in packets.kernel_segments(packet, virtio)]
    assert [reassemble(b.received[:2]), reassemble(b.received[2:])] == expected


def test_a_partial_checksum_is_completed_before_the_packet_is_cut(pair):
    world, a, b = pair
    whole = packets.udp(bytes(1300), source=a.inner(), destination=b.inner())
    whole = packets.with_ip_checksum(whole[:6] + b"\0\0" + whole[8:])
    packet, virtio = packets.as_super_packet(whole, 1300)

    a.tun.outgoing.append(virtio[:1] + b"\0" + virtio[2:] + packet)
    world.run(1)

    assert reassemble(b.received) == whole[20:]


def test_a_super_packet_that_is_none_is_dropped(pair):
    world, a, b = pair
    whole = packets.udp(bytes(2600), source=a.inner(), destination=b.inner())
    packet, _ = packets.as_super_packet(packets.with_ip_checksum(whole[:6] + b"\0\0" + whole[8:]), 1300)

    a.tun.outgoing.append(struct.pack("<BBHHHH", 1, 1, 40, 1300, 20, 16) + packet)
    world.run(1)

    assert a.peer().drops["tun_gso"] == 1
    assert b.received == []


@pytest.mark.parametrize("csum_start", [40, 3000, 0xFFF0])
def test_a_super_packet_whose_headers_are_told_to_be_elsewhere_is_dropped(pair, csum_start):
    packet = packets.tcp(bytes(3000))[: 20 + csum_start]

    assert largest_segment(memoryview(packet), Offload(1, 1, 0, 1360, csum_start, 0)) > 1360


# On every path

WAYS = {
    "wireguard": lambda world: world.pair(),
    "udp": lambda world: world.clear_pair(),
    "ipip": lambda world: world.raw_pair("ipip"),
    "gre": lambda world: world.raw_pair("gre", identifier=7),
}
NARROW = 1204  # bytes: a fragment of an IPv4 packet can have exactly this size
SMALL = 100


class Way:
    """Two nodes, and a path with an MTU of NARROW bytes; *flights* are the packets on it."""

    def __init__(self, name):
        self.world = World()
        self.a, self.b = WAYS[name](self.world)
        self.a.send(self.b)
        self.world.run(1)
        self.b.received.clear()
        self.peer = self.a.peer()
        self.peer.path.mtu, self.peer.path.due = NARROW, math.inf
        self.has_ports = name in {"wireguard", "udp"}
        self.flights = []
        self.world.network.lose = self.flights.append
        self.sent_before = self.peer.traffic.tx_packets

    def udp(self, size, *, version=4, **ip):
        """Return a packet of *size* bytes."""
        ends = {"source": self.a.inner(version), "destination": self.b.inner(version)}
        headers = 28 if version == 4 else 48
        return packets.udp(bytes(n % 251 for n in range(size - headers)), version=version, **ends, **ip)

    def send(self, *made):
        self.a.tun.outgoing += [packets.PLAIN + packet for packet in made]
        self.world.run(0.1)


@pytest.fixture(params=WAYS)
def way(request):
    return Way(request.param)


def test_pieces_leave_in_the_order_of_their_packets_with_their_mark_and_are_counted_as_those(way):
    sent = [way.udp(size, fragment=0, tos=2, identifier=size) for size in (SMALL, 1400, SMALL, 2300)]

    way.send(*sent)

    got = way.b.received
    assert [got[0], got[3]] == [sent[0], sent[2]]
    assert reassemble(got[1:3]) == sent[1][20:]
    assert reassemble(got[4:]) == sent[3][20:]
    assert max(map(len, got)) == NARROW
    assert {flight.tos for flight in way.flights} == {2}
    assert {flight.may_be_cut for flight in way.flights} == {not way.has_ports}
    assert way.peer.traffic.tx_packets - way.sent_before == len(sent)
    assert not way.a.drops


def test_sealed_pieces_are_filled_to_a_multiple_of_16():
    way = Way("wireguard")

    way.send(way.udp(1400, fragment=0), way.udp(1207, fragment=0))

    assert len(way.flights) == 4
    assert all(len(flight.datagram) % 16 == 0 for flight in way.flights)


@pytest.mark.parametrize("is_super", [False, True])
def test_ipv6_packets_that_any_link_must_take_may_be_cut_outside_and_keep_their_mark(way, is_super):
    sent = [way.udp(1280, version=6, tos=2), way.udp(1204, version=6, tos=2)]
    if is_super:
        sent = way.a.send_super(way.b, 5 * 1220, 1220, version=6, tos=2)
        way.world.run(0.1)
    else:
        way.send(*sent)

    assert way.b.received == sent
    assert {flight.tos for flight in way.flights} == {2}
    assert [flight.may_be_cut for flight in way.flights] == [len(packet) > NARROW for packet in sent]
    assert way.peer.traffic.tx_packets - way.sent_before == len(sent)


@pytest.mark.parametrize("version", [4, 6])
def test_what_must_not_be_cut_is_refused_and_counted_each_time(way, version):
    size = 1205 if version == 4 else 1281
    sent = [way.udp(size, version=version) for _ in range(3)]

    way.send(*sent)
    way.a.send_super(way.b, 20_000, 1300, version=version)
    way.world.run(0.1)

    assert way.b.received == []
    assert way.a.drops == {"path_mtu": 4}
    at = 20 if version == 4 else 40
    told = {packet[at : at + 2] + packet[at + 4 : at + 8] for packet in way.a.received}
    assert told == {
        b"\3\4\0\0" + NARROW.to_bytes(2, "big") if version == 4 else b"\2\0" + (1280).to_bytes(4, "big")
    }
    assert len(way.a.received) == 4


def test_super_packets_that_are_none_are_dropped_and_counted_each_time(way):
    packet, _ = packets.as_super_packet(way.udp(2600, fragment=0), 1300)
    for _ in range(2):
        way.a.tun.outgoing.append(struct.pack("<BBHHHH", 1, 1, 40, 1300, 20, 16) + packet)
    way.world.run(0.1)

    assert way.a.drops == {"tun_gso": 2}
    assert way.b.received == []


@pytest.mark.parametrize(("words", "size"), [(5, 40), (6, 44), (15, 80)])
def test_the_largest_segment_is_told_by_the_size_of_its_tcp_header(words, size):
    packet = bytearray(packets.tcp(bytes(3000)))
    packet[32] = words << 4

    assert largest_segment(memoryview(packet), Offload(1, 1, 0, 1000, 20, 0)) == size + 1000


def test_the_largest_segment_of_a_packet_that_ends_before_its_tcp_header_does_is_that_of_a_usual_one():
    packet = memoryview(packets.tcp(bytes(3000)))

    assert largest_segment(packet[:32], Offload(1, 1, 0, 1000, 20, 0)) == 1040
    assert largest_segment(packet[:33], Offload(1, 1, 0, 1000, 20, 0)) == 1040
