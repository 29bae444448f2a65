"""What is sent as units, and what is not."""

from __future__ import annotations

import random

import pytest

from overlay.forwarding.bulk.size import WHOLE
from tests import packets
from tests.sim import World
from tests.two_nodes.units.streams import BOTH, RTT, Stream, connected, forget, kinds


def test_a_super_packet_arrives_as_the_kernel_would_cut_it(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, 60_000)
    world.run(1)

    assert b.received == sent
    assert kinds(world, "a") == {"fragment": 42}
    assert b.peer().traffic.rx_units == a.peer().traffic.tx_units >= 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [0, 1], ids=["over IPv4", "over IPv6"])
@pytest.mark.parametrize("ciphers", [BOTH, BOTH[1:]], ids=["AES", "ChaCha20"])
def test_both_families_go_inside_both(version, outer, ciphers):
    world = World(ciphers=ciphers)
    a, b = world.node("a"), world.node("b")
    a.know(b, endpoint=(b.addresses[0], b.port) if outer == 0 else (b.addresses[1], b.port, 0, 0))
    b.know(a, endpoint=None)
    there, back = Stream(world, a, b, version=version), Stream(world, b, a, version=version)
    for _ in range(3):
        there.go_on(0.1)
        back.go_on(0.1)
    world.run(1)

    assert (a.received, b.received) == (back.sent, there.sent)
    assert a.peer().traffic.rx_units > 20
    assert b.peer().traffic.rx_units > 20


def test_the_first_super_packets_go_as_messages_until_both_have_said_hello(world, pair):
    a, b = pair
    stream = Stream(world, a, b)

    stream.go_on(0.2, every=0.004)
    world.run(1)

    assert b.received == stream.sent
    first = min(at for at, _, kind, _ in world.network.sent if kind == "fragment")
    assert first - world.network.sent[0][0] == pytest.approx(2 * RTT, abs=0.005)


def test_a_stream_the_other_way_needs_no_more_hellos(world, pair):
    a, b = pair
    Stream(world, a, b).go_on(0.2)
    world.run(1)
    forget(a, b)
    back = Stream(world, b, a)

    back.go_on(0.1)
    world.run(1)

    assert a.received == back.sent
    assert set(kinds(world, "b")) == {"fragment"}


@pytest.mark.parametrize(
    ("ours", "theirs", "used"),
    [(BOTH, BOTH[1:], True), (BOTH[1:], BOTH, True), (BOTH, [], False), ([], BOTH, False)],
)
def test_ends_with_other_ciphers_find_one_or_go_without(world, ours, theirs, used):
    world.ciphers = ours
    a = world.node("a")
    world.ciphers = theirs
    b = world.node("b")
    a.know(b)
    b.know(a)
    there, back = Stream(world, a, b), Stream(world, b, a)

    there.go_on(0.2)
    back.go_on(0.2)
    world.run(1)

    assert (a.received, b.received) == (back.sent, there.sent)
    assert ("fragment" in kinds(world)) == used


def test_an_end_with_a_smaller_mtu_gets_no_larger_datagrams(world):
    a, b = world.node("a"), world.node("b")
    a.mtu, b.mtu = 8920, 1420
    a.restart()
    a.know(b)
    b.know(a)
    small, large = Stream(world, a, b, segment=1380), Stream(world, a, b, segment=8880)

    small.go_on(0.3)
    forget()
    start = world.clock.now
    small.go_on(0.3)
    sizes = [size for at, _, kind, size in world.network.sent if kind == "fragment" and at >= start]
    large.go_on(0.1, size=60_000)
    world.run(1)

    assert max(sizes) == 1420 + 32
    assert sorted(b.received) == sorted(small.sent + large.sent)
    assert a.drops == b.drops == {}


def test_jumbo_ends_use_jumbo_datagrams(world):
    a, b = world.node("a"), world.node("b")
    for node in (a, b):
        node.mtu = 8920
        node.restart()
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b, segment=8880)

    stream.go_on(0.3, size=60_000)
    world.run(1)

    assert b.received == stream.sent
    assert max(size for _, _, kind, size in world.network.sent if kind == "fragment") == 8952


@pytest.mark.parametrize(
    ("size", "segment"), [(65_000, 256), (65_000, 1368), (500, 256), (1369, 1368), (20_001, 1368)]
)
def test_super_packets_of_any_shape_arrive(world, pair, size, segment):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, size, segment)
    world.run(1)

    assert b.received == sent
    assert "data" not in kinds(world, "a")


def test_segments_smaller_than_units_take_go_as_messages(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send_super(b, 5000, 255)
    world.run(1)

    assert b.received == sent
    assert "fragment" not in kinds(world)


def test_single_packets_travel_as_before(world, pair):
    a, b = pair
    connected(world, a, b)

    sent = a.send(b, 40, size=1300)
    world.run(0.1)

    assert b.received == sent
    assert kinds(world) == {"data": 40}


@pytest.mark.parametrize("limit", [WHOLE, 16])
def test_single_packets_stay_before_and_behind_the_units_they_were_read_with(world, pair, limit):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit

    sent = a.send(b, 3) + a.send_super(b, 20_000) + a.send(b, 2) + a.send_super(b, 9000) + a.send(b)
    world.run(0.1)

    assert b.received == sent


@pytest.mark.parametrize("limits", [{"most": most} for most in (0, 20, 60, 1500, 4000)] + [{"fragments": 0}])
def test_a_peer_that_takes_small_units_only_gets_messages(world, pair, limits):
    a, b = pair
    connected(world, a, b)
    for name, value in limits.items():
        setattr(a.peer().keypairs.current.bulk, name, value)

    sent = a.send_super(b, 20_000)
    world.run(0.1)

    assert b.received == sent
    assert "fragment" not in kinds(world)


def test_a_peer_s_limit_is_kept_by_every_unit(world, pair):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.fragments = 20
    counts = set()
    world.network.lose = lambda flight: flight.kind == "fragment" and counts.add(flight.datagram[2])

    sent = a.send_super(b, 60_000)
    world.run(0.1)

    assert b.received == sent
    assert max(counts) <= 20


@pytest.mark.parametrize("limit", [WHOLE, 16])
@pytest.mark.parametrize("ecn", range(4))
@pytest.mark.parametrize("version", [4, 6])
def test_units_carry_the_ecn_field_of_their_packets_outside(world, pair, limit, ecn, version):
    a, b = pair
    connected(world, a, b)
    a.peer().keypairs.current.bulk.size.limit = limit
    seen = set()
    world.network.lose = lambda flight: flight.kind == "fragment" and seen.add(flight.tos)

    sent = a.send_super(b, 24_000, version=version, tos=ecn)
    world.run(0.1)

    assert b.received == sent
    assert seen == {ecn}


def send_udp(sender, receiver, size, segment, version=4):
    addresses = {"source": sender.inner(version), "destination": receiver.inner(version)}
    body = random.Random(size).randbytes(size)
    packet, virtio = packets.as_super_packet(packets.udp(body, version=version, **addresses), segment)
    sender.tun.outgoing.append(virtio + packet)
    return packets.kernel_segments(packet, virtio)


@pytest.mark.parametrize("joins_udp", [True, False], ids=["USO", "no USO"])
@pytest.mark.parametrize("version", [4, 6])
def test_udp_super_packets_go_as_units_too(world, joins_udp, version):
    a, b = world.node("a"), world.node("b")
    b.joins_udp = joins_udp
    b.restart()
    a.know(b)
    b.know(a)
    connected(world, a, b)

    sent = [each for size in (2400, 30_000, 45_001) for each in send_udp(a, b, size, 1200, version)]
    world.run(1)

    assert b.received == sent
    assert set(kinds(world, "a")) == {"fragment"}


def test_super_packets_the_kernel_does_not_vouch_for_are_no_units(world, pair):
    a, b = pair
    connected(world, a, b)
    (segments,) = [a.send_super(b, 5000)]
    whole = bytearray(a.tun.outgoing.pop())
    whole[0] = 0
    a.tun.outgoing.append(bytes(whole))

    world.run(0.1)

    assert "fragment" not in kinds(world)
    assert b.received in ([], segments)


@pytest.mark.parametrize(
    ("at", "value"), [(6, 24), (6, 16), (1, 4), (1, 5)], ids=["behind", "before", "IPv6", "UDP"]
)
def test_super_packets_whose_metadata_is_not_what_their_headers_say_are_no_units(world, pair, at, value):
    a, b = pair
    connected(world, a, b)
    a.send_super(b, 5000)
    whole = bytearray(a.tun.outgoing.pop())
    whole[at] = value
    a.tun.outgoing.append(bytes(whole))

    world.run(0.1)

    assert "fragment" not in kinds(world)


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("kind", [0, 60])
def test_super_packets_with_extension_headers_go_as_messages(world, pair, make, kind):
    a, b = pair
    connected(world, a, b)
    whole = make(bytes(range(256)) * 40, version=6, source=a.inner(6), destination=b.inner(6))
    packet, virtio = packets.as_super_packet(packets.with_options(whole, kind=kind), 1300)
    a.tun.outgoing.append(virtio + packet)

    world.run(1)

    assert b.received == packets.kernel_segments(packet, virtio)
    assert "fragment" not in kinds(world)


def test_units_are_sent_one_by_one_where_the_kernel_cannot_cut(world):
    a, b = world.node("a"), world.node("b")
    a.has_segments = False
    a.restart()
    a.know(b)
    b.know(a)
    stream = Stream(world, a, b)

    stream.go_on(0.3)
    world.run(1)

    assert b.received == stream.sent
    assert b.peer().traffic.rx_units > 10
