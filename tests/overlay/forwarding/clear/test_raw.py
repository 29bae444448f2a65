from __future__ import annotations

import errno
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
from tests.overlay.wire.test_mss import mss_of, syn
from tests.sim import World

STRANGER = "203.0.113.66"
IPIP, IPV6, GRE = 4, 41, 47

# Figure 4 of RFC 6040: what goes on, by the inner field; None is "drop".
AT_THE_EXIT = {
    #         outer:  NOT_ECT, ECT_0, ECT_1, CE
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
OUTER_FIELDS = (NOT_ECT, ECT_0, ECT_1, CE)
KINDS = [("ipip", None), ("gre", None), ("gre", 7)]
NAMES = ["ipip", "gre", "gre with a key"]


@pytest.fixture(params=[True, False], ids=["many at once", "one by one"])
def world(request):
    return World(has_gro=request.param)


@pytest.fixture(scope="module")
def shared():
    world = World()
    return world, *world.raw_pair("gre", identifier=7)


def arrive(world, node, *payloads, source, protocol=IPIP, tos=0):
    at = (node.addresses[0], 0) if "." in source else (node.addresses[1], 0, 0, 0)
    for payload in payloads:
        world.network.send(Flight((source, *at[1:]), at, payload, tos, protocol=protocol))
    world.run(0.1)


def genuine(sender, receiver, *, size=20, tcp=False, version=4, **ip):
    ends = {"source": sender.inner(version), "destination": receiver.inner(version), **ip}
    return (
        packets.tcp(bytes(size), version=version, **ends)
        if tcp
        else packets.udp(bytes(size), version=version, **ends)
    )


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

    for _ in range(2):  # the second time rows have the size that the first had
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
    vouched = bytes.fromhex("90000800 00000000 00000007")  # a kernel leaves zero to its card
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


# Packets that a kernel has left unfinished


def unfinished(packet):
    """Return *packet* with the sum of its pseudo header where its checksum belongs."""
    start = packets.l4_start(packet)
    field = start + (16 if packets.protocol_of(packet) == 6 else 6)
    value = packets.ones_complement_sum(packets.pseudo_header(packet, len(packet) - start))
    return packet[:field] + struct.pack("!H", value) + packet[field + 2 :]


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

    assert sizes(13000 + 7) == {1420}  # as the MTU allows, for want of anything better
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


# Life


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
    """Two of them made rows of no bytes, in which the next packet over IPv4 had no header."""
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


# What one receive may hold beside a peer's packets


@pytest.mark.parametrize("count", [2, 11])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("is_tcp", [True, False])
def test_a_stranger_s_packet_in_a_peer_s_batch_is_refused_alone(world, count, place, is_tcp):
    a, b = world.raw_pair("ipip")
    for _ in range(2):  # the second time rows have the size that the first had
        whole = genuine(b, a, size=count * 400, tcp=is_tcp)
        sent = packets.kernel_segments(*packets.as_super_packet(whole, 400)) if is_tcp else [whole] * count
        sources = [b.addresses[0]] * count
        sources[place] = STRANGER
        a.received.clear()
        before = a.drops["outer_source"]

        for packet, source in zip(sent, sources, strict=True):
            world.network.send(Flight((source, 0), (a.addresses[0], 0), packet, protocol=IPIP))
        world.run(0.1)

        del sent[place]
        assert a.received == sent
        assert a.drops["outer_source"] == before + 1
    assert set(a.drops) == {"outer_source"}


@pytest.mark.parametrize("count", [2, 11])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize(
    "wrong", ["2000080000000008", "2000080001000007", "0000080000000007", "200086dd00000007"]
)
def test_a_packet_with_another_header_in_a_batch_is_refused_alone(world, count, place, wrong):
    a, b = world.raw_pair("gre", identifier=7)
    right = bytes.fromhex("2000080000000007")
    for number in range(1, 3):
        sent = packets.kernel_segments(
            *packets.as_super_packet(genuine(b, a, size=count * 400, tcp=True), 400)
        )
        payloads = [right + packet for packet in sent]
        payloads[place] = bytes.fromhex(wrong) + sent[place]
        a.received.clear()

        arrive(world, a, *payloads, source=b.addresses[0], protocol=GRE)

        del sent[place]
        assert a.received == sent
        assert a.drops.total() == number


@pytest.mark.parametrize("count", [2, 11])
def test_packets_of_two_tunnels_at_one_address_in_a_batch_go_to_their_own(world, count):
    a, b, c = (world.node(name) for name in "abc")
    at = (b.addresses[0], 0)
    one, two = (a.know_raw(each, "gre", identifier=key, endpoint=at) for each, key in ((b, 7), (c, 8)))
    of = {key: bytes.fromhex("20000800") + key.to_bytes(4, "big") for key in (7, 8)}
    mixed = [of[7] + genuine(b, a, size=100), of[8] + genuine(c, a, size=100)] * count

    for _ in range(2):
        arrive(world, a, *mixed, source=b.addresses[0], protocol=GRE)
        arrive(world, a, of[8] + genuine(b, a), of[7] + genuine(c, a), source=b.addresses[0], protocol=GRE)

    assert (a.peer(one).traffic.rx_packets, a.peer(two).traffic.rx_packets) == (2 * count, 2 * count)
    assert a.drops == {"source": 4}
    train = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=count * 400, tcp=True), 400))
    for _ in range(2):
        arrive(world, a, *[of[8] + packet for packet in train], source=b.addresses[0], protocol=GRE)
    assert a.drops == {"source": 4 + 2 * count}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("beyond", [1, 2, 255])
def test_rows_with_a_packet_that_is_longer_than_what_came_are_looked_at_one_by_one(world, version, beyond):
    a, b = world.raw_pair("ipip")
    at, protocol = (2, IPIP) if version == 4 else (4, IPV6)
    for number in range(1, 3):
        whole = genuine(b, a, size=4000, tcp=True, version=version)
        sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
        length = int.from_bytes(sent[3][at : at + 2], "big") + beyond
        sent[3] = packets.with_ip_checksum(sent[3][:at] + length.to_bytes(2, "big") + sent[3][at + 2 :])
        a.received.clear()

        arrive(world, a, *sent, source=b.addresses[0], protocol=protocol)

        del sent[3]
        assert a.received == sent
        assert a.drops == {"inner_length": number}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["ipip", "gre"])
def test_rows_of_packets_that_end_where_they_say_are_joined_and_counted_whole(name, version):
    world = World()
    a, b = world.raw_pair(name)
    whole = genuine(b, a, size=4000, tcp=True, version=version)
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    header = b"" if name == "ipip" else bytes.fromhex("00000800" if version == 4 else "000086dd")
    protocol = GRE if name == "gre" else IPIP if version == 4 else IPV6
    payloads = [header + packet for packet in sent]
    arrive(world, a, *payloads, source=b.addresses[0], protocol=protocol)
    before, writes = (a.peer().traffic.rx_bytes, a.peer().traffic.rx_packets), len(a.tun.writes)
    a.received.clear()

    arrive(world, a, *payloads, source=b.addresses[0], protocol=protocol)

    assert a.received == sent
    assert len(a.tun.writes) - writes == 1
    assert a.peer().traffic.rx_bytes - before[0] == sum(map(len, payloads))
    assert a.peer().traffic.rx_packets - before[1] == len(sent)
    assert a.peer().contact.last_received > 0


# How much is taken in one go


def drained(node, receive):
    """Let *node* drain its socket of IP in IP over IPv4, which receives by *receive*; return whether there may be more."""
    (udp,) = [
        each
        for each in node.core.sender.sockets
        if each.protocol == IPIP and each.family == socket.AF_INET and each.raw.receives
    ]
    udp.carrier.receive = receive(udp.carrier.receive)
    return node.core.inbound.drain(udp, 1.0)


def test_errors_that_a_socket_tells_of_earlier_packets_are_counted_and_no_end_of_the_packets():
    world = World()
    a, b = world.raw_pair("ipip")
    packet = genuine(b, a)
    errors = [OSError(errno.ECONNREFUSED, "ECONNREFUSED")] * 2

    def failing(receive):
        def receive_or_fail(into):
            if errors:
                raise errors.pop()
            return receive(into)

        return receive_or_fail

    world.network.send(Flight((b.addresses[0], 0), (a.addresses[0], 0), packet, protocol=IPIP))
    world.clock.advance(1)
    world.network.deliver()

    assert not drained(a, failing)
    assert a.received == [packet]
    assert a.drops == {"udp_error": 2}


def test_errors_without_end_are_left_for_the_next_turn():
    a, _ = World().raw_pair("ipip")

    def failing(_):
        def fail(into):
            raise OSError(errno.ECONNREFUSED, "ECONNREFUSED")

        return fail

    assert drained(a, failing)
    assert 2 <= a.drops["udp_error"] <= 100


def test_packets_without_end_are_left_for_the_next_turn():
    world = World()
    a, b = world.raw_pair("ipip")
    flight = Flight((b.addresses[0], 0), (a.addresses[0], 0), genuine(b, a, size=1000), protocol=IPIP)

    def endless(receive):
        def receive_more(into):
            receive.__self__.inbox.extend([flight] * 64)
            return receive(into)

        return receive_more

    assert drained(a, endless)
    assert 512 * 1024 <= sum(map(len, a.received)) < 2 * 512 * 1024


# What a second receive finds in the rows of the first


def twice(world, a, payloads, **how):
    """Let *payloads* arrive twice; return in how many writes they entered the second time."""
    arrive(world, a, *payloads, **how)
    a.received.clear()
    before = len(a.tun.writes)
    arrive(world, a, *payloads, **how)
    return len(a.tun.writes) - before


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_packets_of_one_flow_enter_in_one_write(build, count):
    world = World()
    a, b = world.raw_pair("ipip")
    whole = build(bytes(count * 500), source=b.inner(), destination=a.inner())
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 500))

    assert twice(world, a, sent, source=b.addresses[0]) == 1

    assert a.received == sent


def test_a_shorter_packet_ends_a_train_whatever_lay_in_its_row():
    world = World()
    a, b = world.raw_pair("ipip")
    whole = packets.tcp(b"\xa5" * 4000, source=b.inner(), destination=a.inner())
    for _ in range(2):  # the second time rows have the size that the first had
        arrive(
            world, a, *packets.kernel_segments(*packets.as_super_packet(whole, 400)), source=b.addresses[0]
        )
    whole = packets.tcp(b"\x5a" * 1001, source=b.inner(), destination=a.inner())
    train = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    alone = genuine(b, a, size=40)
    a.received.clear()
    before = len(a.tun.writes)

    arrive(world, a, *train, alone, source=b.addresses[0])

    assert a.received == [*train, alone]
    assert len(a.tun.writes) - before == 2


def test_packets_that_are_just_as_large_as_a_row_may_be_enter_in_one_write():
    world = World()
    a, b = world.raw_pair("ipip")
    segment = LARGEST_ROW - 20 - 40
    whole = genuine(b, a, size=3 * segment, tcp=True)

    assert (
        twice(
            world, a, packets.kernel_segments(*packets.as_super_packet(whole, segment)), source=b.addresses[0]
        )
        == 1
    )


def test_a_stranger_s_packet_in_their_receive_keeps_them_not_from_entering_in_one_write():
    world = World()
    a, b = world.raw_pair("ipip")
    segment = LARGEST_ROW - 20 - 40
    train = packets.kernel_segments(
        *packets.as_super_packet(genuine(b, a, size=3 * segment, tcp=True), segment)
    )
    at = (a.addresses[0], 0)
    flights = [Flight((STRANGER, 0), at, train[0], protocol=IPIP)]
    flights += [Flight((b.addresses[0], 0), at, packet, protocol=IPIP) for packet in train]

    for _ in range(2):
        writes = len(a.tun.writes)
        for flight in flights:
            world.network.send(flight)
        world.run(0.1)

    assert (len(a.tun.writes) - writes, a.received) == (1, train * 2)
    assert a.drops == {"outer_source": 2}


def test_packets_beside_a_tunnel_with_checksums_enter_in_one_write():
    world = World()
    a, b, c = (world.node(name) for name in "abc")
    a.know_raw(c, "gre", endpoint=(b.addresses[0], 0), identifier=9, has_checksum=True)
    a.know_raw(b, "gre", identifier=7)
    header = bytes.fromhex("2000080000000007")
    train = packets.kernel_segments(*packets.as_super_packet(genuine(b, a, size=4000, tcp=True), 400))

    payloads = [header + packet for packet in train]
    assert twice(world, a, payloads, source=b.addresses[0], protocol=GRE) == 1

    assert a.received == train


@pytest.mark.parametrize("beyond", [-1, 0, 1, 500])
def test_packets_about_as_large_as_a_row_may_be_arrive_however_many_come_at_once(beyond):
    world = World()
    a, b = world.raw_pair("ipip")
    sent = [genuine(b, a, size=LARGEST_ROW - 20 - 28 + beyond)] * 3

    for _ in range(2):
        arrive(world, a, *sent, source=b.addresses[0])

    assert a.received == sent * 2


@pytest.mark.parametrize("name", ["ipip", "gre"])
@pytest.mark.parametrize("count", [1, 2])
def test_packets_of_nothing_are_refused_and_counted(name, count):
    world = World()
    a, b = world.raw_pair(name)

    for _ in range(2):
        arrive(world, a, *[b""] * count, source=b.addresses[0], protocol=GRE if name == "gre" else IPIP)

    assert a.received == []
    assert a.drops.total() == 2 * count


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("path_mtu", "most"), [(1300, 1300), (WIDE, 1420)])
def test_a_syn_that_comes_announces_no_more_than_the_way_back_and_the_tun_take(
    world, path_mtu, most, version, is_partial
):
    a, b = world.raw_pair("ipip")
    a.peer().path.mtu = path_mtu
    packet = syn(8960, version, source=b.inner(version), destination=a.inner(version))

    arrive(
        world,
        a,
        unfinished(packet) if is_partial else packet,
        source=b.addresses[0],
        protocol=IPIP if version == 4 else IPV6,
    )

    (got,) = a.received
    assert mss_of(got) == most - (40 if version == 4 else 60)
    assert packets.is_l4_checksum_right(got)


def test_a_packet_that_comes_alone_is_counted_with_when_it_came(world):
    a, b = world.raw_pair("gre", identifier=7)
    packet = bytes.fromhex("2000080000000007") + genuine(b, a)

    arrive(world, a, packet, source=b.addresses[0], protocol=GRE)

    peer = a.peer()
    assert (peer.traffic.rx_packets, peer.traffic.rx_bytes) == (1, len(packet))
    assert peer.contact.last_received == pytest.approx(world.clock.now - 0.1 + world.network.delay)


@pytest.mark.parametrize(
    ("error", "reason"), [(BlockingIOError(), "tun_full"), (OSError(5, "EIO"), "tun_refused")]
)
@pytest.mark.parametrize("size", [100, 3000])
def test_what_the_tun_does_not_take_is_counted_for_its_sender(size, error, reason):
    world = World()
    a, b = world.raw_pair("ipip")
    for _ in range(2):  # the second time rows have the size that the first had
        b.send_super(a, size, 1360)
        world.run(1)
    a.tun.error = error

    b.send_super(a, size, 1360)
    world.run(1)

    assert a.peer().drops == {reason: 1}


@pytest.mark.parametrize("tos", [0x48, 0x60, 0xFC])
def test_a_syn_is_one_whatever_its_class(world, tos):
    a, b = world.raw_pair("ipip")

    arrive(world, a, syn(8960, source=b.inner(), destination=a.inner(), tos=tos), source=b.addresses[0])

    assert mss_of(a.received[0]) == a.mtu - 40


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_packet_whose_end_is_missing_is_refused_although_that_would_have_been_zeros(version, place):
    world = World()
    a, b = world.raw_pair("ipip")
    protocol = IPIP if version == 4 else IPV6
    whole = genuine(b, a, size=2000, tcp=True, version=version)
    sent = packets.kernel_segments(*packets.as_super_packet(whole, 400))
    arrive(world, a, *sent, source=b.addresses[0], protocol=protocol)
    a.received.clear()
    cut = [packet[:-20] if row == place else packet for row, packet in enumerate(sent)]

    arrive(world, a, *cut, source=b.addresses[0], protocol=protocol)

    del sent[place]
    assert a.received == sent
    assert a.drops == {"inner_length": 1}


@pytest.mark.parametrize("tos", [0xFC, 0x04, ECT_0])
def test_packets_of_several_flows_in_one_receive_are_each_as_they_were_and_counted(tos):
    world = World()
    a, b = world.raw_pair("ipip")
    sent = [genuine(b, a, size=100, ports=(4000 + number, 80), tos=ECT_1) for number in range(6)]

    for _ in range(2):
        arrive(world, a, *sent, source=b.addresses[0], tos=tos)

    assert a.received == sent * 2
    assert not a.drops
    assert a.peer().traffic.rx_packets == 12
    assert a.peer().contact.last_received == pytest.approx(world.clock.now - 0.1 + world.network.delay)
