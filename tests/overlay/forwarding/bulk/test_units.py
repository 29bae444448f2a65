"""Units that arrive: reassembled, opened, checked and written, whatever else arrives with them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.replay import WINDOW
from overlay.errors import PacketError
from overlay.forwarding.bulk.reassembly import (
    UNITS_PER_SESSION,
    WholeUnit,
)
from overlay.forwarding.bulk.size import WHOLE, UnitSize
from overlay.forwarding.bulk.units import (
    LARGEST_DATAGRAM,
    LEAD,
    Cutter,
    UnitKey,
    cut_points,
    make_aead,
    make_for_tun,
    portions,
    read_unit,
    segments_in,
    take_link,
)
from overlay.forwarding.offload.flow import flow_of
from overlay.wire import bulk
from overlay.wire.bulk import (
    AES_BLOCKS_PER_KEY,
    FRAGMENT_HEADER_SIZE,
    MAXIMUM_FRAGMENTS,
    MAXIMUM_PACKET,
    MAXIMUM_SEALED,
    META,
)
from tests import packets, units
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.forwarding.bulk.bench import ELSEWHERE, PIECE, Bench, changed
from tests.packets import ACK, CWR, ECE, FIN, PSH
from tests.sim import World

# What arrives whole


@pytest.mark.parametrize("ciphers", [[units.AES], [units.CHACHA]])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [packets.TCP, packets.UDP])
def test_a_unit_leaves_the_tun_as_the_segments_it_stands_for(ciphers, version, protocol):
    bench = Bench(ciphers=ciphers)
    datagrams, segments = bench.unit(version=version, protocol=protocol, size=40_000)

    bench.arrive(*datagrams)

    assert bench.b.received == segments
    assert len(bench.b.tun.writes) == 1
    assert bench.b.drops == {}


LEAST_DATAGRAM = FRAGMENT_HEADER_SIZE + -(-MAXIMUM_SEALED // MAXIMUM_FRAGMENTS)


@pytest.mark.parametrize(
    "size",
    [LEAST_DATAGRAM, 1452, 9000, 32_800, MAXIMUM_SEALED // 2 + 16, LARGEST_DATAGRAM - 1, LARGEST_DATAGRAM],
)
def test_the_largest_unit_is_cut_into_datagrams_of_any_size(size):
    """The buffers also have room behind the last piece: for a whole datagram except for one byte."""
    key, packet = UnitKey(units.AES, bytes(32), 1), random.Random(size).randbytes(MAXIMUM_PACKET)

    sent = b"".join(
        bytes(part) for part in Cutter().cut(key, 1, 1000, packet[:40], memoryview(packet)[40:], size)
    )
    sealed = b"".join(sent[at + FRAGMENT_HEADER_SIZE : at + size] for at in range(0, len(sent), size))

    assert make_aead(units.AES, bytes(32)).decrypt(bytes(12), sealed, None)[META.size :] == packet


@pytest.mark.parametrize("size", [2, 20, 100, PIECE, 65_000])
def test_pieces_may_have_any_size(bench, size):
    datagrams, segments = bench.unit(size=400, segment=256, piece=size)

    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_fragments_may_come_in_any_order(bench):
    for seed in range(40):
        datagrams, segments = bench.unit(size=9000 + seed)
        random.Random(seed).shuffle(datagrams)

        bench.arrive(*datagrams)

        assert bench.b.received == segments
        bench.b.received.clear()


def test_the_last_fragment_may_come_first(bench):
    datagrams, segments = bench.unit(size=9000)

    bench.arrive(datagrams[-1])
    bench.arrive(*datagrams[:-1])

    assert bench.b.received == segments


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_fragments_may_come_in_any_number_of_receives(bench, parts):
    datagrams, segments = bench.unit(size=60_000)
    cuts = [len(datagrams) * part // parts for part in range(parts + 1)]

    for start, stop in pairwise(cuts):
        bench.arrive(*datagrams[start:stop])

    assert bench.b.received == segments


@pytest.mark.parametrize("size", [5 * PIECE - 16 - 44, 7000])
def test_units_that_are_merged_in_one_receive_are_told_apart(bench, size):
    made = [bench.unit(size=size) for _ in range(5)]

    bench.arrive(*[each for datagrams, _ in made for each in datagrams])

    assert bench.b.received == [each for _, segments in made for each in segments]


def test_smaller_pieces_behind_larger_ones_of_another_unit_are_told_apart(bench):
    """Before, the first one ended the receive, was taken for a last fragment of its unit, and refused."""
    large, segments = bench.unit(size=6 * PIECE - 16 - 44)
    small, more = bench.unit(size=3000, piece=300)
    assert {len(each) for each in large} == {PIECE + 16}

    bench.arrive(*large, *small)

    assert bench.b.received == segments + more
    assert bench.b.drops == {}


def test_units_whose_datagrams_alternate_are_told_apart(bench):
    made = [bench.unit(size=6000 + number) for number in range(UNITS_PER_SESSION)]

    bench.arrive(*[each for row in zip(*[datagrams for datagrams, _ in made], strict=True) for each in row])

    assert bench.b.received == [each for _, segments in made for each in segments]
    assert bench.b.drops == {}


def test_units_and_messages_of_one_size_are_told_apart(bench):
    datagrams, segments = bench.unit(size=6 * PIECE - 16 - 44)
    assert {len(each) for each in datagrams} == {PIECE + 16}
    single = packets.udp(bytes(1420 - 28), source=bench.a.inner(), destination=bench.b.inner())
    more, other = bench.unit(size=6000)
    messages = [bench.message(single) for _ in range(4)]
    assert {len(each) for each in messages} == {PIECE + 16}

    bench.arrive(messages[0], *datagrams[:3], messages[1], *datagrams[3:], *messages[2:], *more)

    assert bench.b.received == [single, single, *segments, single, single, *other]


def test_messages_between_fragments_of_their_size_are_told_apart(bench):
    datagrams, segments = bench.unit(size=6 * PIECE - 16 - 44)
    single = packets.udp(bytes(1420 - 28), source=bench.a.inner(), destination=bench.b.inner())
    messages = [bench.message(single) for _ in range(4)]
    more, other = bench.unit(size=6000)

    bench.arrive(*datagrams[:2], messages[0], messages[1], *datagrams[2:], *more[:-1], messages[2], more[-1])
    bench.arrive(more[0], messages[3])

    assert bench.b.received == [single, single, *segments, single, *other, single]
    assert bench.b.drops == {"replay": 1}


def test_doubled_fragments_are_taken_once(bench):
    datagrams, segments = bench.unit(size=9000)

    bench.arrive(*[each for each in datagrams for _ in range(2)])
    bench.arrive(*datagrams)

    assert bench.b.received == segments
    assert set(bench.b.drops) == {"replay"}


def test_a_unit_that_was_delivered_is_refused_at_its_first_datagram(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams)
    bench.b.received.clear()

    bench.arrive(datagrams[3])

    assert len(bench.reassembly) == 0
    assert bench.b.drops == {"replay": 1}
    assert bench.b.received == []


def test_a_unit_that_left_the_window_is_refused(bench):
    old, _ = bench.unit(counter=5)
    bench.arrive(*bench.unit(counter=6 + WINDOW)[0])
    bench.b.received.clear()

    bench.arrive(*old)

    assert bench.b.drops == {"replay": len(old)}
    assert bench.b.received == []


def test_a_forged_counter_moves_no_window(bench):
    bench.arrive(units.fragment(0, 1, units.AES, bench.key.receiver_index, 2**40, bytes(100)))
    datagrams, segments = bench.unit()

    bench.arrive(*datagrams)

    assert bench.b.received == segments
    assert bench.b.drops == {"unit_auth": 1}


def test_bytes_of_a_unit_are_counted_as_they_were_on_the_wire(bench):
    before, rx_packets = bench.peer.traffic.rx_bytes, bench.peer.traffic.rx_packets
    datagrams, segments = bench.unit(size=9000)

    bench.arrive(*datagrams)

    assert bench.peer.traffic.rx_bytes - before == sum(map(len, datagrams))
    assert bench.peer.traffic.rx_packets - rx_packets == len(segments)
    assert bench.peer.traffic.rx_units == 1


def test_where_the_kernel_takes_no_udp_super_packets_they_are_split():
    bench = Bench(joins_udp=False)
    for version, size in ((4, 20_000), (6, 20_001), (4, 1361)):
        datagrams, segments = bench.unit(protocol=packets.UDP, version=version, size=size)

        bench.arrive(*datagrams)

        assert bench.b.received == segments
        assert [write[:10] for write in bench.b.tun.writes] == [bytes(10)] * len(segments)
        bench.b.received.clear()
        bench.b.tun.writes.clear()


# Where units come from


def test_a_unit_from_elsewhere_moves_the_endpoint(bench):
    datagrams, segments = bench.unit()

    bench.arrive(*datagrams, source=ELSEWHERE)

    assert bench.b.received == segments
    assert bench.peer.endpoint == ELSEWHERE


def test_a_unit_of_which_a_fragment_came_from_elsewhere_moves_nothing_and_is_not_opened(bench):
    datagrams, segments = bench.unit()

    bench.arrive(*datagrams[:-1])
    bench.arrive(datagrams[-1], source=ELSEWHERE)

    assert bench.b.received == []
    assert bench.peer.endpoint == bench.source
    bench.arrive(datagrams[-1])
    assert bench.b.received == segments
    assert bench.peer.endpoint == bench.source


def test_a_unit_that_fails_moves_nothing(bench):
    datagrams, _ = bench.unit()
    datagrams[0] = changed(datagrams[0], 20, 0, 0, 0, 0)

    bench.arrive(*datagrams, source=ELSEWHERE)

    assert bench.peer.endpoint == bench.source
    assert bench.b.drops == {"unit_auth": 1}


def test_units_go_on_arriving_while_the_peer_moves_from_address_to_address(bench):
    for number in range(50):
        datagrams, segments = bench.unit(size=6000 + number)

        bench.arrive(*datagrams, source=(f"198.51.100.{number}", 7))

        assert bench.b.received == segments
        bench.b.received.clear()


# Congestion marks


@pytest.mark.parametrize("marked", [0, 3, -1])
def test_a_mark_on_any_datagram_counts_for_every_packet(bench, marked):
    packet, virtio = bench.packet(tos=2)
    datagrams = bench.sealed(bench.plain(packet, virtio))
    marked %= len(datagrams)

    bench.arrive(*datagrams[:marked], tos=2)
    bench.arrive(datagrams[marked], tos=3)
    bench.arrive(*datagrams[marked + 1 :], tos=2)

    assert bench.b.received == packets.kernel_segments(
        packets.with_ip_checksum(changed(packet, 1, 3)), virtio
    )


def test_a_mark_on_packets_that_cannot_carry_it_drops_them(bench):
    datagrams, _ = bench.unit()

    bench.arrive(*datagrams, tos=3)

    assert bench.b.received == []
    assert bench.b.drops == {"ecn": 1}


def test_no_mark_leaves_the_packets_as_they_are(bench):
    for tos in range(4):
        datagrams, segments = bench.unit(tos=tos)

        bench.arrive(*datagrams, tos=tos if tos != 3 else 2)

        assert bench.b.received == segments
        bench.b.received.clear()


# Keypairs


def test_units_are_refused_by_who_has_said_no_hello():
    world = World(ciphers=[units.AES])
    a, b = world.pair()
    a.send(b)
    world.run(1)
    index = b.peer().keypairs.current.local_index
    flight = Flight(b.peer().endpoint, (b.addresses[0], b.port), units.fragment(0, 2, 1, index, 0, bytes(99)))

    b.sockets[0].inbox.append(flight)
    world.run(0)

    assert b.drops == {"unit_unexpected": 1}


def test_units_are_refused_under_a_keypair_that_is_expired(bench):
    datagrams, _ = bench.unit()
    bench.world.run(181)

    bench.arrive(*datagrams)

    assert bench.b.drops == {"keypair_expired": len(datagrams)}


def test_units_are_unknown_where_they_are_switched_off():
    world = World()
    a, b = world.pair()
    a.send(b)
    world.run(1)
    index = b.peer().keypairs.current.local_index
    flight = Flight(b.peer().endpoint, (b.addresses[0], b.port), units.fragment(0, 2, 1, index, 0, bytes(99)))

    b.sockets[0].inbox.append(flight)
    world.run(0)

    assert b.drops == {"unknown_type": 1}


# How much a key may seal


def test_a_key_of_aes_ends_at_its_block_limit():
    aes, chacha = (UnitKey(cipher, bytes(32), 1) for cipher in (units.AES, units.CHACHA))

    for key in (aes, chacha):
        key.blocks = AES_BLOCKS_PER_KEY

    assert (aes.is_old, aes.is_spent) == (True, True)
    assert (chacha.is_old, chacha.is_spent) == (False, False)


@pytest.mark.parametrize("size", [1361, 4 * 16 * 100 - 44, 4 * 16 * 100 - 43, 60_000])
def test_every_block_that_is_sealed_counts_and_two_more_for_each_unit(bench, size):
    before = bench.key.blocks
    bench.a.send_super(bench.b, size)

    bench.world.run(1)

    assert bench.a.peer().traffic.tx_units == 1
    assert bench.key.blocks - before == -(-(4 + 40 + size) // 16) + 2


# The datagrams that leave


@pytest.mark.parametrize(
    ("size", "mtu", "sends"),
    [
        (1400, 1420, [2]),
        (60_000, 1420, [42]),
        (64_600, 1420, [23, 23]),
        (60_000, 8920, [7]),
        (65_000, 8920, [4, 4]),
    ],
)
def test_a_unit_leaves_with_one_send_or_two_of_nearly_equal_parts(size, mtu, sends):
    world = World(ciphers=[units.AES])
    a, b = world.node("a"), world.node("b")
    for node in (a, b):
        node.mtu = mtu
        node.restart()
    a.know(b)
    b.know(a)
    a.send_super(b, 3000)
    world.run(1)
    a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)
    made, send = [], a.sockets[0].sendmsg
    a.sockets[0].sendmsg = lambda buffers, *rest: (
        made.append(-(-sum(map(len, buffers)) // (mtu + 32))),
        send(buffers, *rest),
    )

    sent = a.send_super(b, size, mtu - 40 if size > mtu else 1000)
    world.run(1)

    assert b.received[-len(sent) :] == sent
    assert made == sends


# Super-packets cut into smaller ones, compared with the kernel

supers = st.tuples(
    st.sampled_from([4, 6]),
    st.sampled_from([packets.TCP, packets.UDP]),
    st.integers(2, 65_000),
    st.integers(256, 1320),
    st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | CWR | ECE | PSH, ACK | ECE]),
    st.sampled_from([b"", bytes([1]) * 12, bytes([1]) * 40]),
    st.integers(0, 2**32 - 1),
)


def has_cwr(head, flow):
    return flow.protocol == packets.TCP and bool(head[flow.l4 + 13] & CWR)


@examples(150)
@given(supers, st.integers(4, 64))
def test_parts_of_a_super_packet_are_the_segments_the_kernel_would_make(made, limit):
    version, protocol, size, segment, flags, options, number = made
    size = max(size, segment + 1)
    if protocol == packets.TCP:
        whole = packets.tcp(
            random.Random(size).randbytes(size),
            version=version,
            flags=flags,
            tcp_options=options,
            sequence=number,
            **({"identifier": number & 0xFFFF} if version == 4 else {}),
        )
    else:
        whole = packets.udp(random.Random(size).randbytes(size), version=version)
    packet, virtio = packets.as_super_packet(whole, segment)
    flow = flow_of(packet)
    count = -(-size // segment)

    cuts = cut_points(count, limit)
    left = []
    for kind, head, payload in portions(memoryview(packet), flow, virtio[1], segment, cuts):
        assert kind >= 0x80 if has_cwr(head, flow) else kind < 0x80
        unit = memoryview(bytearray(LEAD) + units.plaintext(head + bytes(payload), kind, segment))
        make_for_tun(unit, *read_unit(unit, 1420)[1:])
        written = bytes(unit)
        left += packets.kernel_segments(written[10:], written[:10])

    assert left == packets.kernel_segments(packet, virtio)
    assert all(2 <= stop - start <= limit for start, stop in pairwise(cuts))


@examples(150)
@given(
    st.integers(0, 65_555),
    st.integers(0, 255),
    st.sampled_from([1452, 8952]),
    st.sampled_from([28, 40, 100]),
    st.integers(256, 8880),
)
def test_a_unit_is_as_large_as_its_receiver_takes_and_no_larger(room, fragments, datagram, headers, segment):
    def is_taken(count):
        sealed = 4 + headers + count * segment + 16
        return sealed <= room and -(-sealed // (datagram - 16)) <= fragments

    limit = segments_in(room, fragments, datagram, headers, segment)

    assert limit < 1 or is_taken(limit)
    assert not is_taken(max(limit, 0) + 1)


# A unit that arrives complete


def headers_of(count, counter=7, cipher=1, index=0x01020304):
    return [bulk.FRAGMENT_HEADER.pack(5, number, count, cipher, index, counter) for number in range(count)]


@given(st.integers(1, 255), st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_headers_of_a_whole_unit_are_known(count, counter, cipher, index):
    assert WholeUnit(count).are(b"".join(headers_of(count, counter, cipher, index)))


@given(st.integers(2, 60), st.data())
def test_headers_that_differ_in_any_bit_are_not_those_of_a_whole_unit(count, data):
    headers = bytearray(b"".join(headers_of(count)))
    at = data.draw(st.integers(16, len(headers) - 1))
    headers[at] ^= 1 << data.draw(st.integers(0, 7))

    assert not WholeUnit(count).are(headers)


def test_fragments_in_another_order_are_no_whole_unit():
    first, second, third = headers_of(3)

    assert not WholeUnit(3).are(first + third + second)


def test_the_ethernet_header_behind_a_unit_is_all_that_may_be_there_and_no_less():
    size = LEAD + META.size
    whole = bytearray(size + 14)
    whole[LEAD + 1] = 14

    for missing in (1, 14):
        with pytest.raises(PacketError) as refusal:
            take_link(memoryview(whole)[:-missing])
        assert refusal.value.reason == "no_frame"
    unit, header = take_link(memoryview(whole))

    assert (len(unit), header) == (size, bytes(14))
