"""Packets of one flow that are read in one batch: each leaves as it would have left alone."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.offload.flow import HEADER_SIZE
from overlay.forwarding.offload.uniform import LAYOUTS, MOST, WORTH, UniformRows, stride_of
from overlay.forwarding.underlay.batching import PROBE
from tests import packets
from tests.hypothesis_profiles import examples
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
        """Enable batches."""
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
        """Let a send these packets in one batch; with *partial*, it completes their checksums."""
        for packet in made:
            whole, header = left_partial(packet) if partial else (packet, packets.PLAIN)
            self.a.tun.outgoing.append(header + whole)
        self.world.run(1)


def left_partial(packet):
    """Return (packet, virtio header) with a checksum that the kernel has left incomplete."""
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
    assert bench.a.peer().traffic.tx_packets >= 30


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


@examples(60)
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


# A table on its own

HEADER = 16  # bytes before each packet; the virtio header is the last ten of them
MTU = 1420


class Rows:
    """A table with these packets, which all have one size, in a buffer that was used before."""

    def __init__(self, made, mtu=MTU):
        self.length, self.count = len(made[0]), len(made)
        self.stride = stride_of(self.length, mtu)
        self.buffer = bytearray(b"\xff" * (self.stride * max(self.count, MOST) + HEADER))
        self.alike = UniformRows(self.buffer, mtu)
        for row, packet in enumerate(made):
            at = row * self.stride
            self.buffer[at + 6 : at + HEADER] = packets.PLAIN
            self.buffer[at + HEADER : at + HEADER + self.length] = packet

    def packet(self, row):
        at = row * self.stride + HEADER
        return bytes(self.buffer[at : at + self.length])

    @property
    def are_alike(self):
        return self.alike.are(self.length, self.count)


def udp(version=4, size=60):
    return packets.udp(bytes(size), version=version)


@pytest.mark.parametrize(("version", "destination"), [(4, range(16, 20)), (6, range(24, 40))])
@pytest.mark.parametrize("row", [0, 2, 4])
def test_packets_are_alike_if_they_agree_in_what_decides_where_they_go(version, destination, row):
    made = [udp(version)] * 5
    assert Rows(made).are_alike

    for at in range(-10, len(made[0])):
        rows = Rows(made)
        rows.buffer[row * rows.stride + HEADER + at] ^= 0x40
        assert rows.are_alike == (at >= 2 and at not in destination), at


@pytest.mark.parametrize("first", [0x00, 0x50, 0x70, 0xF0])
def test_packets_of_no_known_version_are_not_alike(first):
    assert not Rows([bytes([first]) + udp()[1:]] * 5).are_alike


@pytest.mark.parametrize(("size", "are_alike"), [(20, False), (21, True)])
def test_packets_that_end_with_their_addresses_are_not_alike(size, are_alike):
    assert Rows([udp()[:size]] * 5).are_alike == are_alike


@pytest.mark.parametrize(("mtu", "are_alike"), [(1420, True), (1419, False), (1418, False), (1416, True)])
def test_packets_whose_rows_do_not_begin_at_words_are_not_alike(mtu, are_alike):
    assert Rows([udp(size=mtu - 28)] * 5, mtu).are_alike == are_alike


@pytest.mark.parametrize("options", [b"", bytes([1] * 12)])
@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize("flags", [packets.SYN, packets.SYN | packets.ACK, packets.ACK, packets.FIN, 0])
def test_a_syn_among_them_is_to_be_looked_at(options, row, flags):
    made = [packets.tcp(bytes(20), options=options)] * 5
    made[row] = packets.tcp(bytes(20), options=options, flags=flags)

    assert Rows(made).are_alike == (not flags & packets.SYN)


@pytest.mark.parametrize(("flags", "are_alike"), [(packets.SYN, False), (packets.ACK, True)])
def test_a_syn_over_ipv6_among_them_is_to_be_looked_at(flags, are_alike):
    made = [packets.tcp(bytes(20), version=6)] * 4 + [packets.tcp(bytes(20), version=6, flags=flags)]

    assert Rows(made).are_alike == are_alike


@pytest.mark.parametrize("protocol", [0, 43, 44, 60])
def test_extension_headers_that_may_hide_a_syn_are_to_be_looked_at(protocol):
    made = [packets.ipv6(bytes(40), protocol=17)] * 4 + [packets.ipv6(bytes(40), protocol=protocol)]

    assert not Rows(made).are_alike


def test_what_stands_where_a_syn_s_flag_would_be_is_no_syn_of_another_protocol():
    made = [packets.udp(b"\xff" * 60)] * 5

    assert Rows(made).are_alike


@pytest.mark.parametrize("size", [33, 34])
def test_a_tcp_header_that_is_cut_before_its_flags_is_no_syn(size):
    packet = packets.tcp(bytes(20), flags=packets.SYN)[:size]

    assert Rows([packet] * 5).are_alike == (size == 33)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [packets.UDP, packets.TCP])
@pytest.mark.parametrize("size", [0, 1, 2, 21, 100, 501])
def test_partial_checksums_are_completed_in_each_row(size, protocol, version):
    make = packets.udp if protocol == packets.UDP else packets.tcp
    made = [make(random.Random(number).randbytes(size), version=version) for number in range(5)]
    partial = [left_partial(packet)[0] for packet in made]
    rows = Rows(partial)
    start = packets.l4_start(made[0])

    assert rows.alike.complete(rows.length, rows.count, start, 6 if protocol == packets.UDP else 16)

    assert [rows.packet(row) for row in range(5)] == made


@pytest.mark.parametrize(("offset", "expected"), [(6, 0xFFFF), (16, 0)])
def test_a_checksum_of_zero_is_written_as_udp_wants_it_and_as_tcp_does(offset, expected):
    packet = bytearray(udp(size=40))
    packet[20:] = bytes(len(packet) - 20)
    packet[-2:] = b"\xff\xff"
    rows = Rows([bytes(packet)] * 5)

    assert rows.alike.complete(rows.length, rows.count, 20, offset)

    assert rows.packet(3)[20 + offset : 22 + offset] == expected.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("start", "offset", "size", "is_for_here"),
    [
        (20, 6, 28, True),
        (20, 8, 29, False),
        (20, 8, 30, True),
        (20, 16, 37, False),
        (18, 6, 60, False),
        (19, 6, 60, False),
        (21, 6, 60, False),
        (20, 7, 60, False),
        (40, 6, 60, True),
        (20, 6, 1407, True),
        (20, 6, MTU - 1, False),
    ],
)
def test_a_checksum_is_completed_where_words_begin_and_the_packet_has_it(start, offset, size, is_for_here):
    rows = Rows([bytes(udp(size=size)[:size])] * 5)
    before = bytes(rows.buffer)

    assert rows.alike.complete(rows.length, rows.count, start, offset) == is_for_here

    assert is_for_here or bytes(rows.buffer) == before


def test_an_odd_packet_that_fills_the_mtu_is_not_for_here():
    rows = Rows([udp(size=1421 - 28)] * 5, 1421)

    assert not rows.alike.complete(rows.length, rows.count, 20, 6)


def sealing(counter):
    """Return a keypair that seals by writing its input, and the list of its nonces."""
    nonces = []

    def seal(nonce, plain, _, sealed):
        nonces.append(bytes(nonce))
        sealed[-16:] = bytes([7]) * 16

    return SimpleNamespace(counter=counter, remote_index=0x01020304, seal=seal), nonces


@pytest.mark.parametrize("count", [1, 4, MOST])
@pytest.mark.parametrize("size", [40, 61, 1376, 1392])
def test_a_table_is_sealed_row_by_row_under_counters_of_its_own(size, count):
    made = [packets.udp(random.Random(number).randbytes(size)) for number in range(count)]
    rows = Rows(made)
    keypair, nonces = sealing(0xFFFFFFFE)

    sends = rows.alike.seal(keypair, rows.length, count)

    assert keypair.counter == 0xFFFFFFFE + count
    numbers = [(0xFFFFFFFE + number).to_bytes(8, "little") for number in range(count)]
    assert nonces == [bytes(4) + each for each in numbers]
    padding = bytes(rows.stride - rows.length - 32)
    head = b"\4\0\0\0\4\3\2\1"
    expected = [
        head + number + packet + padding + bytes([7]) * 16
        for number, packet in zip(numbers, made, strict=True)
    ]
    assert b"".join(sends) == b"".join(expected)
    assert all(len(send) % rows.stride == 0 and len(send) <= 65507 for send in sends)
    assert len(sends) == (2 if count * rows.stride > 65500 else 1)


def test_of_a_scan_of_sizes_few_layouts_are_kept():
    rows = Rows([udp(size=1000)] * 2)

    for size in range(100, 100 + 3 * LAYOUTS):
        rows.alike.seal(sealing(0)[0], size, 2)
        assert len(rows.alike._trains) <= LAYOUTS


def test_packets_that_fill_a_send_leave_one_by_one():
    rows = Rows([udp(size=65_472 - 28)] * 2, 65_500)

    sends = rows.alike.seal(sealing(0)[0], rows.length, 2)

    assert [len(send) for send in sends] == [65_504] * 2


# Whether packets to a virtual address are of one flow, so that they are looked up once


def are_of_one_flow(made):
    rows, stride = UniformRows(buffer := bytearray(70_000), 1420), stride_of(len(made[0]), 1420)
    for place, packet in enumerate(made):
        at = place * stride + HEADER_SIZE
        buffer[at : at + len(packet)] = packet
    return rows.are_of_one_flow(len(made[0]), len(made))


def of_client(version=4, *, client=7, port=40_000, **how):
    source = f"198.51.100.{client}" if version == 4 else f"2001:db8:7::{client}"
    destination = "203.0.113.80" if version == 4 else "2001:db8:9::80"
    ends = {"source": source, "destination": destination, "ports": (port, 80), "flags": packets.ACK}
    return packets.tcp(b"payload.", version=version, **ends | how)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_that_differ_in_what_they_carry_are_of_one_flow(version):
    assert are_of_one_flow([of_client(version, sequence=number) for number in range(8)])
    pushed = packets.ACK | packets.PSH
    assert are_of_one_flow([of_client(version), of_client(version, flags=pushed), of_client(version)])


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "other",
    [
        {"client": 8}, {"port": 40_001}, {"ports": (40_000, 81)}, {"flags": packets.FIN | packets.ACK},
        {"flags": packets.RST}, {"flags": packets.SYN},
    ],
    ids=str,
)  # fmt: skip
def test_packets_of_other_ends_or_that_change_a_flow_are_not(version, other, place):
    made = [of_client(version) for _ in range(4)]
    made[place] = of_client(version, **other)

    assert not are_of_one_flow(made)


@pytest.mark.parametrize(("at", "value"), [(6, 0x20), (7, 1), (9, packets.UDP), (0, 0x4F)])
def test_fragments_other_protocols_and_headers_beyond_the_packet_are_not(at, value):
    made = [bytearray(of_client()) for _ in range(4)]
    for packet in made:
        packet[at] = value
    assert are_of_one_flow(made) == (value == packets.UDP)
    made[0][at] = 0 if at else value  # the first bytes are equal: are() has checked that

    assert not are_of_one_flow(made)


def test_packets_with_an_extension_before_the_ports_are_not():
    made = [bytearray(of_client(6)) for _ in range(4)]
    for packet in made:
        packet[6] = 0  # hop-by-hop options

    assert not are_of_one_flow(made)


@pytest.mark.parametrize(("protocol", "carried"), [(packets.UDP, 4), (packets.TCP, 14)])
def test_packets_that_end_with_what_is_asked_are_of_one_flow(protocol, carried):
    ends = {"source": "198.51.100.7", "destination": "203.0.113.80", "protocol": protocol}
    whole, less = (packets.ipv4(bytes(size), **ends) for size in (carried, carried - 1))

    assert are_of_one_flow([whole] * 3)
    assert not are_of_one_flow([less] * 3)
