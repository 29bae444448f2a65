"""Packets of one flow that are read in one batch: each leaves as it would have left alone."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.forwarding.alike import MOST, WORTH
from overlay.forwarding.pace import PROBE
from tests import packets
from tests.sim import World


class Bench:
    """Nodes a, b and c with sessions; a reads and b writes in batches."""

    def __init__(self, **how):
        self.world = World(**how)
        self.a, self.b, self.c = (self.world.node(name) for name in "abc")
        for other in (self.b, self.c):
            self.a.know(other)
            other.know(self.a)
            self.a.send(other)
        self.world.run(1)
        self.wake()

    def wake(self):
        """Let batches be taken."""
        self.a.send(self.b, 3 * PROBE)
        self.world.run(0.1)
        self.b.received.clear()
        self.c.received.clear()
        self.a.sockets[0].sends = 0

    def packet(self, size, number=0, *, to=None, version=4, protocol=packets.UDP, **ip):
        """Return a packet of *size* payload bytes to b, unless told otherwise."""
        addresses = {"source": self.a.inner(version), "destination": (to or self.b).inner(version)}
        body = random.Random(number).randbytes(size)
        make = packets.udp if protocol == packets.UDP else packets.tcp
        return make(body, version=version, **addresses | ip)

    def send(self, made, *, partial=False):
        """Let a send these packets in one batch; with *partial*, their checksums are left to it."""
        for packet in made:
            whole, header = left_partial(packet) if partial else (packet, packets.PLAIN)
            self.a.tun.outgoing.append(header + whole)
        self.world.run(1)


def left_partial(packet):
    """Return (packet, virtio header) with a checksum that the kernel has left to be finished."""
    start = packets.l4_start(packet)
    whole, header = packets.as_super_packet(packet, 0)
    offset = struct.unpack("<BBHHHH", header)[5]
    return whole, struct.pack("<BBHHHH", 1, 0, 0, 0, start, offset)


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)


@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [packets.UDP, packets.TCP])
@pytest.mark.parametrize("size", [0, 20, 21, 36, 77, 500])
def test_equal_packets_leave_together_and_arrive_as_they_were(bench, size, protocol, version, partial):
    sent = [bench.packet(size, number, version=version, protocol=protocol) for number in range(30)]

    bench.send(sent, partial=partial)

    assert bench.b.received == sent
    assert bench.a.sockets[0].sends <= 2
    assert bench.a.peer().tx_packets >= 30


def test_fewer_than_are_worth_a_table_arrive_as_well(bench):
    sent = [bench.packet(36, number) for number in range(WORTH - 1)]

    bench.send(sent)

    assert bench.b.received == sent


def test_a_whole_batch_of_large_packets_takes_as_many_sends_as_it_must(bench):
    sent = [bench.packet(1392, number) for number in range(MOST)]

    bench.send(sent)

    assert bench.b.received == sent


def test_a_packet_for_another_peer_among_them_goes_there(bench):
    sent = [bench.packet(36, number, to=bench.c if number == 7 else None) for number in range(20)]

    bench.send(sent)

    assert bench.c.received == [sent[7]]
    assert bench.b.received == sent[:7] + sent[8:]


def test_an_ecn_field_that_differs_leaves_on_its_own_datagram(bench):
    outer = []
    bench.world.network.lose = lambda flight: bool(outer.append(flight.tos))
    sent = [bench.packet(36, number, tos=2 if number == 3 else 0) for number in range(8)]

    bench.send(sent)

    assert bench.b.received == sent
    assert outer == [0, 0, 0, 2, 0, 0, 0, 0]


def test_packets_without_a_session_wait_for_it_in_their_order(bench):
    bench.a.restart_forwarder()
    sent = [bench.packet(36, number) for number in range(20)]

    bench.send(sent)
    bench.world.run(10)

    assert bench.b.received == sent


def test_packets_that_nobody_takes_are_counted_each(bench):
    bench.send([bench.packet(36, number, destination="10.99.0.1") for number in range(20)])

    assert bench.a.core.drops["no_peer"] == 20


@pytest.mark.parametrize("alone", [True, False])
def test_packets_from_an_address_that_is_not_the_peers_are_refused_each(bench, alone):
    false = [bench.packet(36, number, source="10.99.0.1") for number in range(9)]
    true = [bench.packet(36, number) for number in range(0 if alone else 9)]

    bench.send([packet for pair in zip(false, true or false, strict=True) for packet in pair])

    assert bench.b.received == true
    assert bench.b.peer().drops["source"] == (18 if alone else 9)


@pytest.mark.parametrize(("size", "offset"), [(36, 60), (36, 44), (37, 44), (37, 45)])
def test_a_partial_checksum_that_points_outside_its_packet_is_refused(bench, size, offset):
    packet, _ = left_partial(bench.packet(size))
    header = struct.pack("<BBHHHH", 1, 0, 0, 0, 20, offset)
    bench.a.tun.outgoing += [header + packet] * 10
    bench.world.run(1)

    assert bench.b.received == []
    assert bench.a.peer().drops["tun_malformed"] == 10


def test_what_was_read_behind_them_is_not_harmed(bench):
    equal = [bench.packet(36, number) for number in range(10)]
    other = [bench.packet(size, 50 + size) for size in (37, 500, 37, 1200)]
    large = bench.a.send_super(bench.b, 20_000)
    bench.a.tun.outgoing.rotate(1)

    bench.send(equal + other)

    assert sorted(bench.b.received) == sorted(large + equal + other)


def test_a_full_socket_keeps_them_in_their_order(bench):
    sent = [bench.packet(36, number) for number in range(20)]
    bench.a.sockets[0].is_full = True
    bench.send(sent[:10])
    bench.a.sockets[0].is_full = False

    bench.send(sent[10:])

    assert bench.b.received == sent


def test_small_super_packets_that_a_full_socket_keeps_are_not_overwritten(bench):
    bench.a.sockets[0].is_full = True
    sent = []
    for number in range(6):
        whole = bench.packet(1200, number, protocol=packets.TCP)
        packet, header = packets.as_super_packet(whole, 600)
        sent += packets.kernel_segments(packet, header)
        bench.a.tun.outgoing.append(header + packet)
    bench.world.run(0.1)
    bench.a.sockets[0].is_full = False
    bench.world.run(1)

    assert bench.b.received == sent


kinds = st.tuples(
    st.sampled_from([0, 20, 21, 36, 36, 36, 80, 1392]),  # payload
    st.sampled_from([4, 4, 6]),
    st.sampled_from([packets.UDP, packets.TCP]),
    st.sampled_from(["b", "b", "b", "c", "nobody"]),
    st.sampled_from([0, 0, 0, 2, 3]),  # ECN
    st.booleans(),  # partial checksum
    st.integers(1, 12),  # how many of them
)


@settings(max_examples=60, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=8), st.booleans())
def test_any_batch_arrives_as_its_packets_one_by_one(groups, has_gro):
    bench = Bench(has_gro=has_gro)
    expected = {"b": [], "c": [], "nobody": []}
    for number, (size, version, protocol, to, ecn, partial, count) in enumerate(groups):
        for again in range(count):
            ip = {"tos": ecn}
            if to == "nobody":
                ip["destination"] = {4: "10.99.0.1", 6: "fd99::1"}[version]
            target = bench.c if to == "c" else bench.b
            packet = bench.packet(
                size, 100 * number + again, to=target, version=version, protocol=protocol, **ip
            )
            expected[to].append(packet)
            made, header = left_partial(packet) if partial else (packet, packets.PLAIN)
            bench.a.tun.outgoing.append(header + made)
    bench.world.run(1)

    assert bench.b.received == expected["b"]
    assert bench.c.received == expected["c"]
