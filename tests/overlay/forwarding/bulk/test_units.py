"""Units that arrive: put together, opened, checked and written, whatever else arrives with them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.crypto.replay import WINDOW
from overlay.errors import PacketError
from overlay.forwarding.bulk.reassembly import (
    REASSEMBLY_TIME,
    UNITS_FROM_ELSEWHERE,
    UNITS_PER_SESSION,
    UNITS_TOTAL,
    WholeUnit,
)
from overlay.forwarding.bulk.size import WHOLE, UnitSize
from overlay.forwarding.bulk.units import (
    LEAD,
    UnitKey,
    cut_points,
    make_for_tun,
    portions,
    read_unit,
    segments_in,
    take_link,
)
from overlay.forwarding.offload.flow import flow_of
from overlay.link import messages as link
from overlay.wire import bulk
from overlay.wire.bulk import AES_BLOCKS_PER_KEY, META
from tests import packets, units
from tests.hypothesis_profiles import examples
from tests.network import Flight
from tests.packets import ACK, CWR, ECE, FIN, PSH
from tests.sim import World

ELSEWHERE = ("198.51.100.9", 9)
PIECE = 1436


class Bench:
    """Node b with a session from a in which both have said hello, and a hand to forge what arrives at b."""

    def __init__(self, *, has_gro=True, ciphers=(units.AES, units.CHACHA), joins_udp=True):
        self.world = World(has_gro=has_gro, ciphers=ciphers)
        self.a, self.b = self.world.node("a"), self.world.node("b")
        self.b.joins_udp = joins_udp
        self.b.restart_forwarder()
        self.a.know(self.b)
        self.b.know(self.a)
        self.a.send_super(self.b, 3000)
        self.world.run(1)
        self.b.tun.writes.clear()
        self.b.received.clear()
        self.socket, self.peer = self.b.sockets[0], self.b.peer()
        self.key = self.a.peer().keypairs.current.bulk.key
        self.a.peer().keypairs.current.bulk.size = UnitSize(WHOLE)  # as if the path were known
        self.source = (self.a.addresses[0], self.a.port)
        assert self.b.drops == {}

    @property
    def reassembly(self):
        return self.b.core.inbound.units.reassembly

    def packet(self, size=6000, segment=1360, version=4, protocol=packets.TCP, **how):
        """Return (packet, virtio header) of a super-packet from a to b."""
        addresses = {"source": self.a.inner(version), "destination": self.b.inner(version)}
        make = packets.tcp if protocol == packets.TCP else packets.udp
        body = random.Random(size).randbytes(size)
        return packets.as_super_packet(make(body, version=version, **addresses | how), segment)

    def plain(self, packet, virtio):
        return units.plaintext(packet, virtio[1], int.from_bytes(virtio[4:6], "little"))

    def sealed(self, plain, counter=None, piece=PIECE):
        """Return the datagrams of a genuine unit of any plaintext, under any counter."""
        if counter is None:
            counter, self.key.counter = self.key.counter, self.key.counter + 1
        whole = bytearray(len(plain) + 16)
        self.key.seal(bytes(4) + counter.to_bytes(8, "little"), plain, None, whole)
        return units.datagrams(bytes(whole), self.key.cipher, self.key.receiver_index, counter, piece)

    def unit(self, counter=None, piece=PIECE, **how):
        """Return (datagrams, the segments they stand for) of a new unit."""
        packet, virtio = self.packet(**how)
        return self.sealed(self.plain(packet, virtio), counter, piece), packets.kernel_segments(
            packet, virtio
        )

    def arrive(self, *datagrams, source=None, tos=0):
        """Let b receive *datagrams* now."""
        destination = (self.b.addresses[0], self.b.port)
        self.socket.inbox += [Flight(source or self.source, destination, each, tos) for each in datagrams]
        self.world.run(0)

    def message(self, packet):
        """Return a genuine transport message of a."""
        keypair = self.a.peer().keypairs.current
        counter, keypair.counter = keypair.counter, keypair.counter + 1
        sealed = bytearray(len(packet) + 16)
        keypair.seal(bytes(4) + counter.to_bytes(8, "little"), packet, None, sealed)
        header = b"\4\0\0\0" + keypair.remote_index.to_bytes(4, "little") + counter.to_bytes(8, "little")
        return header + bytes(sealed)


@pytest.fixture(params=[True, False], ids=["merged", "single"])
def bench(request):
    return Bench(has_gro=request.param)


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
    """The first of them ended the receive, was taken for a last fragment of its unit, and refused."""
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


# Claims that do not hold


def changed(data, at, *values):
    copy = bytearray(data)
    copy[at : at + len(values)] = values
    return bytes(copy)


def resized(bench, more, **how):
    """Return a plaintext whose IP length is off by *more*."""
    packet, virtio = bench.packet(**how)
    at = 2 if packet[0] >> 4 == 4 else 4
    value = int.from_bytes(packet[at : at + 2], "big") + more
    return bench.plain(packets.with_ip_checksum(changed(packet, at, *value.to_bytes(2, "big"))), virtio)


def meta(bench, at, *values, **how):
    """Return a plaintext with other metadata."""
    return changed(bench.plain(*bench.packet(**how)), at, *values)


def header(bench, at, *values, **how):
    """Return a plaintext with other bytes in the packet."""
    packet, virtio = bench.packet(**how)
    return bench.plain(packets.with_ip_checksum(changed(packet, at, *values)), virtio)


def cut(size, segment):
    """Return metadata and a packet of so many bytes."""
    return lambda bench: bench.plain(*bench.packet(size=size, segment=segment))


V6 = {"version": 6}
UDP = {"protocol": packets.UDP}
CLAIMS = {
    "nothing": (lambda b: b"", "unit_short"),
    "metadata alone": (lambda b: bytes(4), "unit_packet"),
    "half a header": (lambda b: b.plain(*b.packet())[:43], "unit_packet"),
    "no GSO type": (lambda b: meta(b, 0, 0), "unit_meta"),
    "that of IPv6": (lambda b: meta(b, 0, 4), "unit_meta"),
    "that of IPv4": (lambda b: meta(b, 0, 1, **V6), "unit_meta"),
    "that of UDP": (lambda b: meta(b, 0, 5), "unit_meta"),
    "that of TCP": (lambda b: meta(b, 0, 1, **UDP), "unit_meta"),
    "UDP with CWR": (lambda b: meta(b, 0, 0x85, **UDP), "unit_meta"),
    "UFO": (lambda b: meta(b, 0, 3, **UDP), "unit_meta"),
    "an unknown bit": (lambda b: meta(b, 0, 0x41), "unit_meta"),
    "the byte that is zero": (lambda b: meta(b, 1, 1), "unit_meta"),
    "segments of 0 bytes": (lambda b: meta(b, 2, 0, 0), "unit_meta"),
    "segments of 1 byte": (lambda b: meta(b, 2, 1, 0), "unit_meta"),
    "segments of 255 bytes": (lambda b: meta(b, 2, 255, 0), "unit_meta"),
    "segments over the MTU": (cut(6000, 1381), "unit_meta"),
    "segments far over the MTU": (cut(65_000, 32_000), "unit_meta"),
    "one segment": (cut(1360, 1360), "unit_packet"),
    "no payload": (cut(0, 1360), "unit_packet"),
    "a byte less than it says": (lambda b: resized(b, 1), "unit_packet"),
    "a byte more than it says": (lambda b: resized(b, -1), "unit_packet"),
    "a byte less, IPv6": (lambda b: resized(b, 1, **V6), "unit_packet"),
    "a byte more, IPv6": (lambda b: resized(b, -1, **V6), "unit_packet"),
    "another UDP length": (lambda b: header(b, 24, 9, 9, **UDP), "unit_packet"),
    "another UDP length, IPv6": (lambda b: header(b, 44, 9, 9, **UDP, **V6), "unit_packet"),
    "more fragments": (lambda b: header(b, 6, 0x20), "unit_packet"),
    "a later fragment": (lambda b: header(b, 6, 0, 1), "unit_packet"),
    "a short IPv4 header": (lambda b: header(b, 0, 0x44), "unit_packet"),
    "an IPv4 header past the end": (
        lambda b: b.plain(changed(b.packet(size=0)[0], 0, 0x4F), bytes(10)),
        "unit_packet",
    ),
    "version 5": (lambda b: b.plain(changed(b.packet()[0], 0, 0x55), b.packet()[1]), "unit_packet"),
    "ICMP": (lambda b: header(b, 9, 1), "unit_packet"),
    "an extension header": (lambda b: header(b, 6, 0, **V6), "unit_packet"),
    "a fragment header": (lambda b: header(b, 6, 44, **V6), "unit_packet"),
    "a short TCP header": (lambda b: header(b, 32, 0x40), "unit_packet"),
    "a TCP header past the end": (
        lambda b: b.plain(changed(b.packet(size=1)[0], 32, 0xF0), b.packet(size=1)[1]),
        "unit_packet",
    ),
    "a spoofed source": (lambda b: b.plain(*b.packet(source="10.244.9.9")), "source"),
    "the receiver as source": (lambda b: b.plain(*b.packet(source=b.b.inner())), "source"),
    "a spoofed IPv6 source": (lambda b: b.plain(*b.packet(**V6, source="fd00:9::9")), "source"),
}


@pytest.mark.parametrize(("make", "reason"), CLAIMS.values(), ids=CLAIMS)
def test_a_claim_that_does_not_hold_is_refused_and_counted(bench, make, reason):
    bench.arrive(*bench.sealed(make(bench)))

    assert bench.b.drops == {reason: 1}
    assert bench.b.tun.writes == []

    datagrams, segments = bench.unit()
    bench.arrive(*datagrams)
    assert bench.b.received == segments


def test_a_packet_over_64_kib_is_refused(bench):
    packet, virtio = bench.packet(size=65_535 - 40)
    plain = bench.plain(packet + b"x", virtio)

    bench.arrive(*bench.sealed(plain))

    assert bench.b.tun.writes == []
    assert sum(bench.b.drops.values()) == 1


def test_the_largest_packet_arrives(bench):
    datagrams, segments = bench.unit(size=65_535 - 40)

    bench.arrive(*datagrams)

    assert bench.b.received == segments


@pytest.mark.parametrize(("size", "segment"), [(257, 256), (2760, 1380), (1381, 1380)])
def test_claims_at_the_edge_hold(bench, size, segment):
    datagrams, segments = bench.unit(size=size, segment=segment)

    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_what_the_kernel_is_told_of_cwr_follows_from_the_packet(bench):
    packet, virtio = bench.packet(flags=ACK | CWR)
    lying = bench.sealed(changed(bench.plain(packet, virtio), 0, 1))

    bench.arrive(*lying)

    assert bench.b.tun.writes[0][1] == 0x81
    assert bench.b.received == packets.kernel_segments(packet, virtio)


# Datagrams that are forged


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda each: each[:16], "fragment_short"),
        (lambda each: changed(each, 4, 0xFF, 0xFF, 0xFF, 0xFF), "unknown_index"),
        (lambda each: changed(each, 1, each[2]), "fragment_header"),
        (lambda each: changed(each, 2, 0), "fragment_header"),
        (lambda each: changed(each, 3, 0), "unit_unexpected"),
        (lambda each: changed(each, 3, 9), "unit_unexpected"),
    ],
)
def test_a_header_that_cannot_be_is_refused(bench, forge, reason):
    datagrams, segments = bench.unit(size=9000)

    for _ in range(2):
        bench.arrive(*[forge(each) for each in datagrams])

    assert bench.b.drops == {reason: 2 * len(datagrams)}
    assert len(bench.reassembly) == 0
    bench.arrive(*datagrams)
    assert bench.b.received == segments


def test_fragments_that_are_numbered_from_1_are_refused(bench):
    datagrams, _ = bench.unit(size=9000)

    bench.arrive(*[changed(each, 1, each[1] + 1) for each in datagrams])

    assert bench.b.tun.writes == []
    assert bench.b.drops["fragment_header"] > 0


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda each: changed(each, 2, 200), "fragment_header"),
        (lambda each: changed(each, 3, units.CHACHA), "fragment_header"),
        (lambda each: each + b"x", "fragment_size"),
        (lambda each: each[:-1], "fragment_size"),
    ],
    ids=["count", "cipher", "longer", "shorter"],
)
def test_a_fragment_that_contradicts_the_others_changes_nothing(bench, forge, reason):
    datagrams, segments = bench.unit(size=9000)

    bench.arrive(*datagrams[:3])
    bench.arrive(forge(datagrams[4]))
    bench.arrive(*datagrams[3:])

    assert bench.b.received == segments
    assert bench.b.drops == {reason: 1}


def test_the_first_copy_of_a_fragment_stays(bench):
    datagrams, segments = bench.unit(size=9000)
    bench.arrive(*datagrams[:4])

    bench.arrive(*[each[:16] + bytes(len(each) - 16) for each in datagrams[:4]])
    bench.arrive(*datagrams[4:])

    assert bench.b.received == segments


def test_a_fragment_injected_first_costs_its_unit_and_no_other(bench):
    datagrams, _ = bench.unit(size=9000)
    after, segments = bench.unit(size=9001)

    bench.arrive(datagrams[2][:16] + bytes(PIECE))
    bench.arrive(*datagrams, *after)

    assert bench.b.received == segments
    assert bench.b.drops["unit_auth"] == 1


def test_a_last_fragment_longer_than_the_others_costs_its_unit(bench):
    datagrams, _ = bench.unit(size=9000)
    after, segments = bench.unit(size=9001)

    bench.arrive(datagrams[-1] + bytes(2000))
    bench.arrive(*datagrams[:-1], *after)

    assert bench.b.received == segments
    assert bench.b.drops == {"fragment_size": 1}


@pytest.mark.parametrize("count", [46, 255])
def test_a_unit_that_would_be_too_large_is_refused(bench, count):
    index = bench.key.receiver_index
    bench.arrive(
        *[units.fragment(number, count, units.AES, index, 77, bytes(1460)) for number in range(count)]
    )

    assert bench.b.tun.writes == []
    assert set(bench.b.drops) <= {"fragment_size", "unit_auth"}


@pytest.mark.parametrize("size", [17, 31, 32, 33])
def test_any_number_of_tiny_fragments_in_one_receive_is_refused(bench, size):
    bench.arrive(*[b"\5" + bytes([number & 0xFF]) * (size - 1) for number in range(400)])

    assert bench.b.drops == {"unknown_index": 400}


def test_fragments_numbered_on_past_the_count_are_refused(bench):
    index = bench.key.receiver_index.to_bytes(4, "little")
    row = [(number << 8) + 0x0101F505 for number in range(300)]

    bench.arrive(*[word.to_bytes(4, "little") + index + bytes(40) for word in row])

    assert bench.b.tun.writes == []
    assert sum(bench.b.drops.values()) > 250


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


# Bounds


def first_fragments(bench, count, start=1000):
    index = bench.key.receiver_index
    return [units.fragment(0, 40, units.AES, index, start + number, bytes(PIECE)) for number in range(count)]


def test_a_flood_from_the_endpoint_is_bounded_and_costs_no_later_unit(bench):
    bench.arrive(*first_fragments(bench, 500))
    assert len(bench.reassembly) == UNITS_PER_SESSION
    assert bench.b.drops == {"unit_incomplete": 500 - UNITS_PER_SESSION}

    datagrams, segments = bench.unit()
    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_a_flood_from_elsewhere_costs_no_unit_of_the_endpoint(bench):
    datagrams, segments = bench.unit(size=9000)
    bench.arrive(*datagrams[:3])

    for number, each in enumerate(first_fragments(bench, 300)):
        bench.arrive(each, source=(f"203.0.113.{number % 250}", number))
    assert len(bench.reassembly) == UNITS_FROM_ELSEWHERE + 1
    bench.arrive(*datagrams[3:])

    assert bench.b.received == segments


def test_a_flood_of_one_session_costs_no_unit_of_another():
    world = World(ciphers=[units.AES])
    b = world.node("b")
    others = [world.node(f"n{number}") for number in range(3)]
    for other in others:
        b.know(other)
        other.know(b)
        other.send_super(b, 3000)
    world.run(1)
    b.received.clear()
    flooded, *rest = (b.peer(number) for number in (1, 2, 3))
    index = flooded.keypairs.current.local_index
    destination = (b.addresses[0], b.port)
    flood = [
        Flight(flooded.endpoint, destination, units.fragment(0, 9, units.AES, index, number, bytes(99)))
        for number in range(50, 250)
    ]

    b.sockets[0].inbox += flood
    sent = others[1].send_super(b, 30_000) + others[2].send_super(b, 30_000)
    world.run(1)

    assert sorted(b.received) == sorted(sent)
    assert [dict(peer.drops) for peer in rest] == [{}, {}]


def test_all_sessions_together_are_bounded():
    world = World(ciphers=[units.AES])
    b = world.node("b")
    for number in range(6):
        other = world.node(f"n{number}")
        b.know(other)
        other.know(b)
        other.send_super(b, 3000)
    world.run(1)
    flood = []
    for peer in b.core.peers.values():
        index = peer.keypairs.current.local_index
        flood += [
            Flight(
                peer.endpoint, (b.addresses[0], b.port), units.fragment(0, 9, units.AES, index, n, bytes(99))
            )
            for n in range(50, 90)
        ]

    b.sockets[0].inbox += flood
    world.run(0)

    assert len(b.core.inbound.units.reassembly) == UNITS_TOTAL


def test_an_incomplete_unit_is_given_up_in_time(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[:-1])

    bench.world.run(REASSEMBLY_TIME)
    bench.arrive(datagrams[-1])

    assert bench.b.received == []
    assert bench.b.drops == {"unit_incomplete": 1}
    assert len(bench.reassembly) == 1


def test_a_unit_given_up_may_come_again_whole(bench):
    datagrams, segments = bench.unit(size=9000)
    bench.arrive(*datagrams[:-1])
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*datagrams)

    assert bench.b.received == segments


def test_fragments_that_lacked_are_reported(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[2:])
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*bench.unit()[0])

    assert bench.peer.keypairs.current.bulk.missing == 2


def test_fragments_that_lacked_of_what_came_from_elsewhere_are_not_reported(bench):
    datagrams, _ = bench.unit(size=9000)
    bench.arrive(*datagrams[2:], source=ELSEWHERE)
    bench.world.run(REASSEMBLY_TIME)

    bench.arrive(*bench.unit()[0][1:])

    assert bench.b.drops == {"unit_incomplete": 1}
    assert bench.peer.keypairs.current.bulk.missing == 0


def test_fragments_of_a_peer_that_is_removed_are_forgotten(bench):
    bench.arrive(*first_fragments(bench, 5))

    bench.b.tell(link.RemovePeer(1))

    assert len(bench.reassembly) == 0
    bench.arrive(*first_fragments(bench, 5))
    assert len(bench.reassembly) == 0


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


# How datagrams leave


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


# Super-packets cut into smaller ones, beside the kernel

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


# Anything at all


@pytest.fixture(scope="module")
def shared():
    """One bench for many examples: nothing that is refused may change it."""
    return Bench()


@examples(150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            st.integers(0, 255),
            st.integers(0, 3),
            st.booleans(),
            st.integers(0, 30) | st.integers(0, 2**64 - 1),
            st.binary(max_size=60),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_fragments_are_survived_within_the_bounds(shared, rows):
    for number, count, cipher, is_known, counter, piece, is_elsewhere in rows:
        index = shared.key.receiver_index if is_known else 7
        datagram = units.fragment(number, count, cipher, index, 2**30 + counter % 2**60, piece)
        shared.arrive(datagram, source=ELSEWHERE if is_elsewhere else None)

        assert len(shared.reassembly) <= UNITS_PER_SESSION + UNITS_FROM_ELSEWHERE
    assert shared.b.tun.writes == []
    assert shared.peer.endpoint == shared.source


@examples(150)
@given(st.lists(st.binary(max_size=80).map(lambda tail: b"\5" + tail), max_size=30))
def test_any_bytes_behind_the_type_are_survived(shared, datagrams):
    shared.arrive(*datagrams)

    assert shared.b.tun.writes == []


@examples(100)
@given(st.randoms(use_true_random=False), st.booleans())
def test_in_any_weather_each_unit_arrives_once_and_unchanged_or_not_at_all(chance, has_gro):
    bench = Bench(has_gro=has_gro)
    flights, wanted = [], []
    for number in range(12):
        datagrams, segments = bench.unit(size=chance.randrange(1400, 9000), piece=chance.choice([300, PIECE]))
        wanted.append(segments)
        for position, datagram in enumerate(datagrams):
            for _ in range(chance.choice([0] + [1] * 30 + [2] * 5)):
                damaged = changed(datagram, chance.randrange(len(datagram)), chance.randrange(256))
                when = number * 6 + position + chance.choice([0, 0, 0, 20]) * chance.random()
                flights.append((when, damaged if chance.random() < 0.01 else datagram))
    flights.sort()
    at = 0
    while at < len(flights):
        step = chance.randrange(1, 30)
        bench.arrive(*[datagram for _, datagram in flights[at : at + step]])
        at += step

    got = bench.b.received
    for segments in wanted:
        if segments[0] in got:
            start = got.index(segments[0])
            assert got[start : start + len(segments)] == segments
            del got[start : start + len(segments)]
    assert got == []


def in_order(flights):
    """Return what arrives with each flight: a unit with the last of its datagrams, whatever else is missing."""
    there, done, arrives = {}, set(), []
    for name, number, count, segments in flights:
        there.setdefault(name, set()).add(number)
        is_whole = len(there[name]) == count and name not in done
        arrives.append(segments if is_whole else [])
        if is_whole:
            done.add(name)
    return arrives


@examples(150)
@given(st.randoms(use_true_random=False), st.booleans())
def test_in_any_weather_packets_leave_as_their_datagrams_arrive_and_wait_for_no_others(chance, has_gro):
    bench = Bench(has_gro=has_gro)
    flights = []
    for name in range(14):
        if chance.random() < 0.4:
            packet = packets.udp(
                chance.randbytes(chance.choice([0, 700, 1392])),
                source=bench.a.inner(),
                destination=bench.b.inner(),
            )
            datagrams, segments = [bench.message(packet)], [packet]
        else:
            protocol, version = chance.choice([packets.TCP, packets.UDP]), chance.choice([4, 6])
            size, piece = chance.randrange(1400, 9000), chance.choice([300, PIECE, PIECE])
            datagrams, segments = bench.unit(piece=piece, size=size, protocol=protocol, version=version)
        for number, datagram in enumerate(datagrams):
            for _ in range(chance.choice([0] + [1] * 20 + [2] * 3)):
                when = len(flights) + chance.choice([0] * 9 + [12]) * chance.random()
                flights.append((when, datagram, (name, number, len(datagrams), segments)))
    flights.sort(key=lambda flight: flight[0])
    wanted = in_order([flight for *_, flight in flights])
    at = 0
    while at < len(flights):
        step = chance.choice([1, 1, 2, chance.randrange(1, 40)])
        bench.arrive(*[datagram for _, datagram, _ in flights[at : at + step]])
        at += step

        assert bench.b.received == [segment for segments in wanted[:at] for segment in segments]


# A unit that comes whole


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
