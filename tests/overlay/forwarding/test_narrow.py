from __future__ import annotations

import struct

import pytest

from overlay.forwarding.narrow import largest_segment
from tests import packets
from tests.overlay.wire.test_fragments import reassemble
from tests.sim import World


@pytest.fixture
def pair():
    """Two nodes with a session, and a path that takes packets of 1200 bytes."""
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    b.received.clear()
    a.peer().path_mtu = 1200
    return world, a, b


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "make",
    [packets.tcp, packets.udp, lambda data, **ip: packets.tcp(data, tcp_options=bytes([1] * 12), **ip)],
)
def test_the_largest_segment_is_that_which_the_kernel_would_make(version, make):
    packet, virtio = packets.as_super_packet(make(bytes(5000), version=version), 1000)
    _, kind, _, segment, start, _ = struct.unpack("<BBHHHH", virtio)

    assert largest_segment(memoryview(packet), kind, segment, start) == len(
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

    assert largest_segment(memoryview(packet), 1, 1360, csum_start) > 1360
