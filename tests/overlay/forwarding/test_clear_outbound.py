from __future__ import annotations

import pytest

from tests import packets
from tests.sim import CLEAR_PORT, World


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def world(request):
    return World(has_gro=request.param)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_arrive_unchanged_and_as_they_are_on_the_wire(world, version):
    a, b = world.clear_pair()

    sent = a.send(b, 5, version=version)
    world.run(1)

    assert b.received == sent
    assert [size for *_, size in world.network.sent] == [len(packet) for packet in sent]
    assert not b.drops
    assert (a.peer().tx_packets, b.peer().rx_packets) == (5, 5)
    assert a.peer().tx_bytes == b.peer().rx_bytes == sum(map(len, sent))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (size, segment)
        for size in (2, 1400, 30001, 60000)
        for segment in (1360, 1361, 536, 1)
        if size // segment <= 1000  # a kernel makes no more of one
    ],
)
def test_a_super_packet_arrives_as_its_segments(world, version, size, segment):
    a, b = world.clear_pair()

    sent = a.send_super(b, size, segment, version)
    world.run(1)

    assert b.received == sent
    assert not a.drops + b.drops


def test_a_super_packet_leaves_in_one_send_and_enters_in_one_write():
    world = World()
    a, b = world.clear_pair()

    sent = a.send_super(b, 30 * 1360)
    world.run(1)

    assert (len(sent), sum(each.sends for each in a.clear_sockets), len(b.tun.writes)) == (30, 1, 1)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("size", "writes"), [(47 * 1360, 1), (47 * 1360 - 1, 1), (47 * 1360 + 2, 1), (80 * 700, 2)]
)
def test_a_super_packet_that_takes_several_receives_enters_in_as_few_writes_as_can_be(version, size, writes):
    world = World()
    a, b = world.clear_pair()
    b.gro_count = 24

    sent = a.send_super(b, size, 700 if size == 80 * 700 else 1360, version)
    world.run(1)

    assert b.received == sent
    assert len(b.tun.writes) == writes


def test_super_packets_that_end_with_psh_are_each_a_write_of_its_own():
    world = World()
    a, b = world.clear_pair()
    b.gro_count = 10

    sent = []
    for number in range(4):
        sent += a.send_super(b, 20 * 1360, flags=packets.ACK | packets.PSH, sequence=number * 20 * 1360)
    world.run(1)

    assert b.received == sent
    assert len(b.tun.writes) == 4


def test_a_packet_for_a_peer_without_an_address_is_answered_with_unreachable(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, endpoint=None)

    a.send(b)
    world.run(1)

    assert a.drops == {"no_endpoint": 1}
    assert [packets.protocol_of(packet) for packet in a.received] == [1]


def test_our_own_datagram_on_its_way_into_its_tunnel_is_a_loop(world):
    a, b = world.node("a"), world.node("b")
    a.know_in_the_clear(b, subnets=["192.0.2.0/24"])
    datagram = packets.udp(
        b"x", ports=(CLEAR_PORT, CLEAR_PORT), source=a.addresses[0], destination=b.addresses[0]
    )

    a.tun.outgoing.append(packets.PLAIN + datagram)
    world.run(1)

    assert (a.drops, world.network.sent) == ({"loop": 1}, [])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mark", range(4))
def test_the_inner_ecn_field_is_the_outer_one(world, version, mark):
    a, b = world.clear_pair()
    seen = []
    world.network.mark = lambda flight: (seen.append(flight.tos), flight.tos)[1]

    a.send(b, version=version, tos=mark)
    world.run(1)

    assert seen == [mark]
    assert not b.drops
