from __future__ import annotations

import itertools
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.forwarding.peer import WIDE
from overlay.forwarding.underlay.mmsg import LARGEST_ROW
from overlay.link import messages as link
from overlay.wire.icmp import in_ipv4, too_big_v4
from overlay.wire.ip import CE, ECT_0, ECT_1, NOT_ECT, packet_length, pseudo_header_sum
from tests import packets
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.overlay.forwarding.clear.raw_world import (
    AT_THE_EXIT,
    GRE,
    IPIP,
    IPV6,
    KINDS,
    NAMES,
    OUTER_FIELDS,
    STRANGER,
    arrive,
    genuine,
    unfinished,
)
from tests.sim import World


@pytest.fixture(scope="module")
def shared():
    world = World()
    return world, *world.raw_pair("gre", identifier=7)


@pytest.mark.parametrize(("name", "key"), KINDS, ids=NAMES)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_packets_arrive_unchanged(world, name, key, outer, version):
    a, b = world.raw_pair(name, outer=outer, identifier=key)

    sent = a.send(b, 5, version=version) + a.send(b, 3, size=9000, version=version)
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert not a.drops + b.drops
    assert (a.peer().traffic.tx_packets, b.peer().traffic.rx_packets) == (8, 8)
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes


@pytest.mark.parametrize(("name", "key"), KINDS, ids=NAMES)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [2, 30001, 60000])
@pytest.mark.parametrize("segment", [1360, 1361, 536])
def test_a_super_packet_arrives_as_its_segments(world, name, key, outer, version, size, segment):
    a, b = world.raw_pair(name, outer=outer, identifier=key)

    for _ in range(2):  # the second time, rows have the size that the first time needed
        sent = a.send_super(b, size, segment, version)
        world.run(1)

        assert b.received == sent
        b.received.clear()
    assert not a.drops + b.drops
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes


@pytest.mark.parametrize(("name", "key"), KINDS, ids=NAMES)
def test_a_super_packet_enters_in_one_write_once_the_size_of_its_packets_is_known(name, key):
    world = World()
    a, b = world.raw_pair(name, identifier=key)
    a.send_super(b, 30 * 1360)
    world.run(1)
    before, sends = len(b.tun.writes), sum(each.sends for each in a.sockets)

    a.send_super(b, 30 * 1360)
    world.run(1)

    assert (len(b.tun.writes) - before, sum(each.sends for each in a.sockets) - sends) == (1, 1)


# GRE with checksums and sequence numbers

HAS = [
    {"has_checksum": True},
    {"has_sequence": True},
    {"has_checksum": True, "has_sequence": True, "identifier": 7},
]
HEADERS = [8, 8, 16]


@pytest.mark.parametrize("has", HAS, ids=["checksum", "sequence", "both and a key"])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_packets_with_checksum_and_number_arrive_unchanged(world, has, outer, version):
    a, b = world.raw_pair("gre", outer=outer, **has)
    flights = []
    world.network.lose = flights.append

    sent = a.send(b, 5, version=version) + a.send(b, 2, size=1500, version=version)
    world.run(1)
    sent += a.send_super(b, 30001, version=version)
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert not a.drops + b.drops
    assert a.peer().traffic.tx_bytes == b.peer().traffic.rx_bytes
    payloads = [flight.datagram for flight in flights]
    if "has_checksum" in has:
        assert all(packets.internet_checksum(payload) == 0 for payload in payloads)
    if "has_sequence" in has:
        at = HEADERS[HAS.index(has)] - 4
        numbers = [int.from_bytes(payload[at : at + 4], "big") for payload in payloads]
        assert numbers == [n % 4 * 2**30 for n in range(8)] + list(range(len(payloads) - 8))


@pytest.mark.parametrize("has", HAS, ids=["checksum", "sequence", "both and a key"])
def test_they_are_also_on_the_pieces_that_a_narrow_path_takes(world, has):
    world.network.tells = True
    a, b = world.raw_pair("gre", **has)
    a.known_mtus[b.addresses[0]] = 600
    flights = []
    world.network.lose = flights.append

    a.send(b, 3, size=1000, fragment=0)
    world.run(1)

    assert len(flights) == 6
    assert not b.drops
    for flight in flights:
        assert len(flight.datagram) <= 600 - 20
        assert flight.datagram[0] & 0x90 == 0x80 * ("has_checksum" in has) + 0x10 * ("has_sequence" in has)
        assert "has_checksum" not in has or packets.internet_checksum(flight.datagram) == 0


def test_a_reload_that_changes_nothing_of_a_tunnel_does_not_begin_its_numbers_anew(world):
    a, b = world.raw_pair("gre", has_sequence=True)
    a.send(b, 20)
    world.run(1)
    flights = []
    world.network.lose = flights.append

    a.tell(link.SetPeer(1, 0.0, "gre", [(bytes(4), 0)], Ends(has_sequence=True)))
    a.send(b)
    world.run(1)

    assert [int.from_bytes(flight.datagram[4:8], "big") for flight in flights] == [20 - 8]


@pytest.mark.parametrize("mine", HAS)
@pytest.mark.parametrize("count", [1, 4])
def test_what_has_neither_is_taken_all_the_same_and_the_other_way_round(world, mine, count):
    a, b = world.node("a"), world.node("b")
    key = mine.get("identifier")
    a.know_raw(b, "gre", **mine)
    b.know_raw(a, "gre", identifier=key)

    to_b, to_a = a.send(b, count), b.send(a, count)
    world.run(1)

    assert (a.received, b.received) == (to_a, to_b)


@pytest.mark.parametrize("count", [1, 9])
def test_equal_packets_with_a_wrong_checksum_or_an_old_number_are_not_taken_as_one(world, count):
    a, b = world.node("a"), world.node("b")
    a.know_raw(b, "gre", has_checksum=True, has_sequence=True)
    packet = genuine(b, a, tcp=True, size=1000)
    header = bytes.fromhex("90000800 ffff0000 00000007")

    for _ in range(2):
        arrive(world, a, *[header + packet] * count, source=b.addresses[0], protocol=GRE)
    assert (a.received, a.drops) == ([], {"gre_checksum": 2 * count})

    a.drops.clear()
    vouched = bytes.fromhex("90000800 00000000 00000007")  # a kernel leaves zero for its card
    for _ in range(2):
        arrive(world, a, *[vouched + packet] * count, source=b.addresses[0], protocol=GRE)
    assert a.received == [packet]
    assert a.peer().drops["gre_sequence"] == 2 * count - 1


def test_a_damaged_segment_is_joined_with_no_other(world):
    a, b = world.raw_pair("ipip")
    segments = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=5440, tcp=True), 1360))
    segments[1] = segments[1][:-1] + bytes([segments[1][-1] ^ 1])

    for _ in range(2):
        arrive(world, a, *segments, source=b.addresses[0])

    assert a.received == segments * 2


@pytest.mark.parametrize("count", [1, 4])
def test_only_a_peer_s_endpoint_may_send(world, count):
    a, b = world.raw_pair("ipip")
    packet = genuine(b, a)

    arrive(world, a, *[packet] * count, source=STRANGER)
    assert (a.received, a.drops) == ([], {"outer_source": count})

    arrive(world, a, *[packet] * count, source=b.addresses[0])
    assert a.received == [packet] * count


@pytest.mark.parametrize("is_tcp", [True, False])
def test_an_inner_source_that_is_not_the_peer_s_is_refused(world, is_tcp):
    a, b = world.raw_pair("ipip")
    segments = [genuine(b, a, source="10.9.9.9")] * 3
    if is_tcp:
        whole = genuine(b, a, size=4080, tcp=True, source="10.9.9.9")
        segments = packets.kernel_segments(*packets.as_super_packet(whole, 1360))

    for _ in range(2):
        arrive(world, a, *segments, source=b.addresses[0])

    assert (a.received, a.peer().drops) == ([], {"source": 6})


def test_a_director_s_clients_are_taken_from_its_sources(world):
    a, b = world.node("a"), world.node("b")
    a.know_raw(b, "ipip", sources=["0.0.0.0/0"])

    arrive(world, a, genuine(b, a, source="198.51.100.9"), source=b.addresses[0])
    assert len(a.received) == 1
    arrive(world, a, genuine(b, a, source=a.inner()), source=b.addresses[0])
    assert (len(a.received), a.drops) == (1, {"source": 1})


def test_peers_at_one_address_are_told_apart_by_key_and_by_source(world):
    a, b, c, d = (world.node(name) for name in "abcd")
    at = (b.addresses[0], 0)
    numbers = [
        a.know_raw(each, "gre", identifier=key, endpoint=at) for each, key in ((b, 7), (c, 7), (d, None))
    ]
    keyed, bare = bytes.fromhex("2000080000000007"), bytes.fromhex("00000800")

    for header, sender in ((keyed, b), (keyed, c), (bare, d)):
        arrive(world, a, *[header + genuine(sender, a)] * 2, source=b.addresses[0], protocol=GRE)
    assert [a.peer(number).traffic.rx_packets for number in numbers] == [2, 2, 2]

    arrive(world, a, bare + genuine(b, a), source=b.addresses[0], protocol=GRE)
    arrive(world, a, keyed + genuine(d, a), source=b.addresses[0], protocol=GRE)
    assert a.drops == {"source": 2}


@pytest.mark.parametrize(
    ("key", "header", "reason"),
    [
        (7, "00000800", "gre_key"),
        (7, "2000080000000008", "gre_key"),
        (None, "2000080000000007", "gre_key"),
        (None, "2000080000000000", "gre_key"),
        (7, "2000080000000007ff", "inner_version"),
        (7, "200108000000000700000000", "gre_version"),
        (7, "20000800", "inner_version"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_key_and_garbage_are_counted_by_their_reason(world, key, header, reason, count):
    a, b = world.raw_pair("gre", identifier=key)

    for _ in range(2):
        arrive(
            world, a, *[bytes.fromhex(header) + genuine(b, a)] * count, source=b.addresses[0], protocol=GRE
        )

    assert a.received == []
    assert a.drops.total() == 2 * count
    assert a.peer().drops == {reason: 2 * count}


@pytest.mark.parametrize(("protocol", "version"), [(IPIP, 6), (IPV6, 4)])
def test_a_packet_of_the_other_version_than_its_protocol_is_refused(world, protocol, version):
    a, b = world.raw_pair("ipip")

    arrive(world, a, *[genuine(b, a, version=version)] * 2, source=b.addresses[0], protocol=protocol)

    assert (a.received, a.drops) == ([], {"inner_version": 2})


def test_late_numbers_are_dropped_until_their_sender_begins_anew(world):
    a, b = world.raw_pair("gre")

    def numbered(number):
        arrive(
            world,
            a,
            struct.pack("!HHI", 0x1000, 0x0800, number % 2**32) + genuine(b, a),
            source=b.addresses[0],
            protocol=GRE,
        )
        return len(a.received)

    assert [numbered(number) for number in (-2, -1, 1, 1, 0, -1, 2)] == [1, 2, 3, 3, 3, 3, 4]
    assert a.drops == {"gre_sequence": 3}
    world.run(3)
    assert numbered(0) == 5
    arrive(world, a, bytes.fromhex("00000800") + genuine(b, a), source=b.addresses[0], protocol=GRE)
    assert len(a.received) == 6  # one without a number


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("count", [1, 3])
def test_each_pair_of_ecn_fields_becomes_what_the_table_says(outer, version, count):
    world = World()
    a, b = world.raw_pair("ipip", outer=outer)
    wanted, refused = [], 0
    for inside, outside in itertools.product(range(4), repeat=2):
        expected = AT_THE_EXIT[inside][OUTER_FIELDS.index(outside)]
        wanted += [] if expected is None else [genuine(b, a, version=version, tos=0xB8 | expected)] * count
        refused += count if expected is None else 0

        arrive(
            world,
            a,
            *[genuine(b, a, version=version, tos=0xB8 | inside)] * count,
            source=b.addresses[0 if outer == 4 else 1],
            protocol=IPIP if version == 4 else IPV6,
            tos=outside,
        )

        assert a.received == wanted
        assert a.drops == ({"ecn": refused} if refused else {})


def test_outer_marks_of_one_receive_may_differ(world):
    a, b = world.raw_pair("ipip")
    at = (b.addresses[0], 0), (a.addresses[0], 0)
    marks = [ECT_0, ECT_0, CE, ECT_1, ECT_0, NOT_ECT]

    for _ in range(2):
        for mark in marks:
            world.network.send(Flight(*at, genuine(b, a, tos=ECT_0), mark, protocol=IPIP))
        world.run(1)

    assert [packet[1] for packet in a.received] == [ECT_0, ECT_0, CE, ECT_1, ECT_0, ECT_0] * 2


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("is_tcp", [True, False])
def test_a_packet_with_a_partial_checksum_is_finished(world, version, is_tcp):
    a, b = world.raw_pair("ipip")
    packet = genuine(b, a, version=version, size=1000, tcp=is_tcp)

    arrive(
        world,
        a,
        unfinished(packet),
        source=b.addresses[0],
        protocol=IPIP if version == 4 else IPV6,
        tos=ECT_0,
    )

    assert a.received == [packet]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("name", "header"), [("ipip", ""), ("gre", "0000")])
@pytest.mark.parametrize("payload", [2 * 1300, 2 * 1300 + 1, 46 * 1300, 46 * 1300 - 7, 3 * 1000])
def test_segments_that_a_kernel_has_merged_are_cut_again(world, version, name, header, payload):
    a, b = world.raw_pair(name)
    whole = genuine(b, a, version=version, size=payload, tcp=True)
    if header:
        header += "0800" if version == 4 else "86dd"
    protocol = GRE if name == "gre" else IPIP if version == 4 else IPV6

    arrive(world, a, bytes.fromhex(header) + unfinished(whole), source=b.addresses[0], protocol=protocol)

    assert all(len(packet) <= a.mtu and packets.is_l4_checksum_right(packet) for packet in a.received)
    headers = packets.l4_start(whole) + 20
    assert b"".join(packet[headers:] for packet in a.received) == whole[headers:]
    assert len(a.tun.writes) == 1


def test_merged_segments_are_cut_to_the_size_that_was_seen_and_that_icmp_tells(world):
    a, b = world.raw_pair("ipip")

    def sizes(payload):
        a.received.clear()
        arrive(world, a, unfinished(genuine(b, a, size=payload, tcp=True)), source=b.addresses[0])
        return {len(packet) for packet in a.received[:-1]}

    assert sizes(13000 + 7) == {1420}  # as the MTU allows: nothing smaller is known
    assert sizes(13000) == {1340}
    assert sizes(13000 + 7) == {1340}
    error = struct.pack("!BBHI", 3, 4, 0, 1200) + genuine(b, a)[:28]
    a.tun.outgoing.append(
        packets.PLAIN + packets.ipv4(error, source=a.inner(), destination=b.inner(), protocol=1)
    )
    world.run(1)
    assert max(sizes(13000 + 7)) <= 1200


def test_datagrams_that_a_kernel_has_merged_are_dropped(world):
    a, b = world.raw_pair("ipip")

    arrive(world, a, unfinished(genuine(b, a, size=4000)), source=b.addresses[0])

    assert (a.received, a.drops) == ([], {"udp_merged": 1})


def test_a_packet_larger_than_any_row_arrives(world):
    a, b = world.raw_pair("ipip")
    sent = [genuine(b, a, size=size) for size in (LARGEST_ROW, 20, 30000, 20)]

    for _ in range(2):
        arrive(world, a, *sent, source=b.addresses[0])

    assert a.received == sent * 2


# Life cycle


def test_a_removed_peer_is_heard_no_more_and_its_sockets_close_at_once(world):
    a, b = world.raw_pair("ipip")
    opened = list(a.raw_sockets["ipip"])

    a.route([], b.subnets)
    a.tell(link.RemovePeer(1))
    a.tell(link.Sockets("ipip", []))
    world.run(0.1)

    assert all(each.is_closed for each in opened)


@examples(200)
@given(
    payloads=st.lists(
        st.binary(max_size=80)
        | st.builds(
            lambda head, body, cut: (head + body)[:cut],
            st.sampled_from(
                [
                    bytes.fromhex(text)
                    for text in ("0000080045000020", "200008000000000745", "b000080000000000")
                ]
            ),
            st.binary(max_size=80),
            st.integers(0, 84),
        )
        | st.builds(
            lambda body, protocol, version: (
                bytes.fromhex(f"2000{'0800' if version == 4 else '86dd'}00000007")
                + (packets.ipv4 if version == 4 else packets.ipv6)(
                    body,
                    *(("10.244.2.1", "10.244.1.1") if version == 4 else ("fd00:244:2::1", "fd00:244:1::1")),
                    protocol=protocol,
                )
            ),
            st.binary(max_size=30),
            st.sampled_from([1, 6, 17, 58, 99]),
            st.sampled_from([4, 6]),
        ),
        max_size=5,
    ),
    tos=st.integers(0, 3),
)
def test_any_payloads_are_taken_as_the_peer_s_packets_or_dropped_and_counted(shared, payloads, tos):
    world, a, b = shared
    a.received.clear()
    before = a.drops.total()

    arrive(world, a, *payloads, source=b.addresses[0], tos=tos, protocol=GRE)

    assert len(a.received) + a.drops.total() - before >= len(payloads)
    assert all(packet_length(packet) == len(packet) for packet in a.received)


@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_packets_that_are_nothing_but_an_ipv6_header_leave_room_for_the_next(name):
    """Before, two of them made rows of zero bytes, in which the next packet over IPv4 had no header."""
    world = World()
    a, b = world.raw_pair(name)
    raw = next(each for each in b.sockets if each.family == socket.AF_INET6 and each.receives)
    for _ in range(2):
        raw.inbox.append(
            Flight(("2001:db8::66", 0, 0, 0), ("2001:db8::2", 0, 0, 0), b"", 0, False, raw.protocol)
        )
    world.run(0.1)

    sent = a.send(b, 3)
    world.run(1)

    assert b.received == sent


def partial_udp(sender, receiver, size):
    packet = bytearray(packets.udp(bytes(size), source=sender.inner(), destination=receiver.inner()))
    packet[26:28] = pseudo_header_sum(packet[12:16], packet[16:20], 17, len(packet) - 20).to_bytes(2, "big")
    return bytes(packet)


def test_an_icmp_error_on_its_way_through_takes_no_datagrams_and_is_forgotten(world):
    a, b = world.raw_pair("ipip")
    told = in_ipv4(too_big_v4(packets.udp(b"x"), 68), bytes([10, 244, 2, 9]), bytes([10, 244, 1, 1]))
    b.tun.outgoing.append(packets.PLAIN + told)
    world.run(1)
    assert b.peer().unsealed.segment_limit == 576

    arrive(world, b, partial_udp(a, b, 1000), source=a.addresses[0])

    assert [len(each) for each in b.received] == [1028]
    world.run(700)
    b.send(a)
    world.run(1)
    assert b.peer().unsealed.segment_limit == WIDE
