"""Super-packets, and congestion marks (RFC 6040)."""

from __future__ import annotations

import errno

import pytest

from overlay.link import messages as link
from tests import packets
from tests.packets import ACK, CWR, ECE, PSH
from tests.two_nodes.stories.talking import connected

# ECN (RFC 6040)


@pytest.mark.parametrize("inner", range(4))
def test_the_outer_header_carries_the_inner_ecn_field_and_no_dscp(world, pair, inner):
    a, b = pair
    connected(world, a, b)
    outer = []
    world.network.lose = lambda flight: flight.kind == "data" and bool(outer.append(flight.tos))
    sent = a.send(b, tos=0xB8 | inner)

    world.run(1)

    assert outer == [inner]
    assert b.received == sent


@pytest.mark.parametrize("version", [4, 6])
def test_a_congestion_mark_on_the_way_reaches_the_receiver(world, pair, version):
    a, b = pair
    connected(world, a, b)
    world.network.mark = lambda flight: 3
    capable, _ = a.send(b, tos=2, version=version), a.send(b, tos=0, version=version)

    world.run(1)

    (heard,) = b.received
    assert (heard[1] & 3 if version == 4 else heard[1] >> 4 & 3) == 3
    assert packets.is_ip_checksum_right(heard)
    assert heard[20:] == capable[0][20:] if version == 4 else heard[2:] == capable[0][2:]
    assert b.drops["ecn"] == 1


def test_a_marked_super_packet_is_marked_in_every_segment(world, pair):
    a, b = pair
    connected(world, a, b)
    world.network.mark = lambda flight: 3
    sent = a.send_super(b, 20_000, tos=2)

    world.run(1)

    assert len(b.received) == len(sent)
    assert all(heard[1] & 3 == 3 and packets.is_ip_checksum_right(heard) for heard in b.received)
    assert [heard[20:] for heard in b.received] == [each[20:] for each in sent]


# Super-packets


@pytest.mark.parametrize("version", [4, 6])
def test_super_packets_go_both_ways(world, pair, version):
    a, b = pair
    connected(world, a, b)
    segment = 1360 if version == 4 else 1340
    to_a, to_b = [], []
    for number in range(10):
        tcp = {"version": version, "sequence": 1 + number * 64_000, "flags": ACK | PSH}
        to_b += a.send_super(b, 64_000, segment, **tcp)
        to_a += b.send_super(a, 64_000, segment, **tcp)
        world.run(0.1)

    assert (a.received, b.received) == (to_a, to_b)
    assert len(b.tun.writes) <= 40
    assert a.drops + b.drops == {}


def test_a_super_packet_that_waited_for_the_handshake_arrives_whole(world, pair):
    a, b = pair
    sent = a.send_super(b, 60_000) + a.send(b) + a.send_super(b, 3000, 1000, sequence=60_001)

    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("flags", [ACK | CWR, ACK | ECE | CWR | PSH, ACK | ECE])
def test_flags_of_ecn_survive(world, pair, flags):
    a, b = pair
    connected(world, a, b)
    sent = a.send_super(b, 5000, 1000, flags=flags, tos=2)

    world.run(1)

    assert b.received == sent


@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize("segments", [True, False])
def test_kernels_without_offloads_carry_the_same(world, gro, segments):
    a, b = world.node("a"), world.node("b")
    a.has_gro = b.has_gro = gro
    a.has_segments = b.has_segments = segments
    a.restart()
    b.restart()
    a.know(b)
    b.know(a)
    sent = a.send_super(b, 60_000) + a.send(b, 10)

    world.run(1)

    assert b.received == sent


def test_a_device_that_cannot_cut_is_remembered(world, pair):
    a, b = pair
    connected(world, a, b)
    a.sockets[0].errors.append(errno.EIO)
    sent = a.send_super(b, 60_000)

    world.run(1)

    assert b.received == sent
    assert not a.core.sender.segments


def test_a_route_of_a_smaller_mtu_still_carries_what_fitted(world, pair):
    a, b = pair
    connected(world, a, b)
    a.send(b, size=1297 - 28)

    world.run(1)

    assert world.network.sent[-1][3] == 1297 + 15 + 32  # padded to 1312, below the MTU of 1420
    a.tell(link.SetNode(1299, False, []))
    sent = a.send(b, size=1297 - 28)
    world.run(1)
    assert b.received[1:] == sent
    assert world.network.sent[-1][3] == 1297 + 32
