"""Units with false claims, and forged datagrams."""

from __future__ import annotations

import pytest

from tests import packets, units
from tests.overlay.forwarding.bulk.bench import PIECE, changed
from tests.packets import ACK, CWR


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
    """Return metadata and a packet of that many bytes."""
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
