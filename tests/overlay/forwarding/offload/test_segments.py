from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.forwarding.offload import split
from overlay.forwarding.offload.flow import (
    Flow,
    flow_behind_extensions,
    flow_of,
    padded,
)
from overlay.forwarding.offload.split import Splitter
from overlay.wire.virtio import GSO_TCPV6, GSO_UDP_L4
from tests import packets
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.offload.trains import (
    check_join,
    check_split,
    flow,
    opened,
    payload_of,
    payload_with_a_zero_checksum,
    sealed_train,
    with_padding,
)
from tests.packets import ACK, CWR, ECE, FIN, PSH

# Padding


@pytest.mark.parametrize(
    ("length", "mtu", "expected"),
    [
        (0, 1420, 0),
        (1, 1420, 16),
        (16, 1420, 16),
        (1405, 1420, 1408),
        (1408, 1420, 1408),
        (1409, 1420, 1409),
        (1420, 1420, 1420),
        (1297, 1299, 1297),
        (1297, 1300, 1297),
        (1290, 1299, 1296),
        (1297, 1312, 1312),
        (5000, 1420, 5000),
    ],
)
def test_a_plaintext_is_padded_to_16_but_never_beyond_the_mtu(length, mtu, expected):
    assert padded(length, mtu) == expected


# Splitting


@st.composite
def super_packets(draw):
    """(packet, segment size) of a TCP or UDP super-packet with anything in its headers."""
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from([packets.TCP, packets.TCP, packets.UDP]))
    ip = {"tos": draw(st.integers(0, 255)), "ttl": draw(st.integers(1, 255))}
    if version == 4:
        ip["identifier"] = draw(st.integers(0, 65535) | st.just(65530))
        ip["options"] = bytes([1]) * draw(st.sampled_from([0, 0, 4, 12, 40]))
        ip["fragment"] = draw(st.sampled_from([0, packets.DONT_FRAGMENT]))
    else:
        ip["flow_label"] = draw(st.integers(0, 2**20 - 1))
    segment = draw(st.integers(1, 60) | st.integers(500, 1500) | st.integers(1, 9000))
    count = draw(st.integers(1, 5) | st.integers(1, 60))
    size = draw(st.integers((count - 1) * segment + 1, count * segment))
    payload = payload_of(min(size, 60_000), draw(st.integers(0, 255)))
    if protocol == packets.UDP:
        ports = draw(st.tuples(st.integers(0, 65535), st.integers(0, 65535)))
        return packets.udp(payload, version=version, ports=ports, **ip), segment
    return (
        packets.tcp(
            payload,
            version=version,
            sequence=draw(st.integers(0, 2**32 - 1) | st.integers(2**32 - 3000, 2**32 - 1)),
            acknowledgement=draw(st.integers(0, 2**32 - 1)),
            flags=draw(st.integers(0, 255)),
            window=draw(st.integers(0, 65535)),
            tcp_options=bytes(range(1, 41))[: 4 * draw(st.integers(0, 10))],
            urgent=draw(st.integers(0, 65535)),
            reserved=draw(st.integers(0, 15)),
            **ip,
        ),
        segment,
    )


@examples(250)
@given(super_packets(), st.sampled_from([1280, 1299, 1300, 1419, 1420, 8920]) | st.integers(576, 9000))
def test_a_train_is_what_the_kernel_would_have_made(super_packet, mtu):
    check_split(*super_packet, mtu)


@examples(250)
@given(st.lists(super_packets(), min_size=2, max_size=4), st.sampled_from([1299, 1420]))
def test_what_an_earlier_train_left_in_the_buffer_is_not_seen(several, mtu):
    splitter = Splitter(mtu)
    for _ in range(2):  # the second time, every geometry is known
        for packet, segment in several:
            check_split(packet, segment, mtu, splitter)


@pytest.mark.parametrize("mtu", [1280, 1299, 1300, 1420])
@pytest.mark.parametrize("over", [0, 1, 2, 3, 700, 1000])
@pytest.mark.parametrize("version", [4, 6])
def test_odd_sizes_and_odd_mtus_are_cut_right(mtu, over, version):
    segment = mtu - (40 if version == 4 else 60) - over % 4

    check_split(packets.tcp(payload_of(segment * 3 + over), version=version), segment, mtu)


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("kind", [0, 60])
@pytest.mark.parametrize("options", [6, 14, 62])
@pytest.mark.parametrize("size", [3000, 3001, 2500, 700])
def test_extension_headers_are_in_every_segment(make, kind, options, size):
    whole = packets.with_options(make(payload_of(size), version=6), bytes(options), kind)

    check_split(whole, 1000, 1420)


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("size", [3000, 2999])
def test_the_address_that_counts_may_be_in_an_extension_header(make, size):
    """With a routing header, the checksum covers the last destination, which only the kernel's partial sum has."""
    last = packets.ip_address("fd00::77").packed
    whole = packets.with_options(make(payload_of(size), version=6))
    changed = whole[:24] + last + whole[40:]
    (counted, virtio), start = packets.as_super_packet(changed, 1000), packets.l4_start(whole)
    packet = counted[:24] + whole[24:40] + counted[40:]

    train = Splitter(1420).split(memoryview(packet), virtio[1], 1000, start)

    found = [row[:24] + last + row[40:] for row in opened(sealed_train(train))]
    expected = packets.kernel_segments(counted, virtio)
    assert found == [with_padding(each, 1420) for each in expected]


@pytest.mark.parametrize("version", [4, 6])
def test_without_extension_headers_what_the_checksum_field_held_is_no_matter(version):
    packet, virtio = packets.as_super_packet(packets.tcp(payload_of(2500), version=version), 1000)
    start = packets.l4_start(packet)
    rubbish = packet[: start + 16] + b"\xab\xcd" + packet[start + 18 :]

    train = Splitter(1420).split(memoryview(rubbish), virtio[1], 1000, start)

    expected = packets.kernel_segments(packet, virtio)
    assert opened(sealed_train(train)) == [with_padding(each, 1420) for each in expected]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p[:40],
        lambda p: p[:55],
        lambda p: p[:61],
        lambda p: p[:60] + b"\x40" + p[61:],
        lambda p: p[:60] + b"\0" + p[61:],
    ],
)
def test_an_extension_header_with_half_a_tcp_header_behind_it_is_refused(change):
    whole = packets.with_options(packets.tcp(payload_of(2500), version=6))

    with pytest.raises(PacketError) as refusal:
        Splitter(1420).split(memoryview(change(whole)), 4, 1000, 48)
    assert refusal.value.reason == "tun_gso"


@pytest.mark.parametrize("kind", [4, 5])
def test_what_is_no_tcp_or_udp_right_behind_the_ipv6_header_is_refused(kind):
    make = packets.tcp if kind == 4 else packets.udp
    packet = make(payload_of(2500), version=6)
    changed = packet[:6] + bytes([0]) + packet[7:]  # hop-by-hop options, by what the header says

    with pytest.raises(PacketError) as refusal:
        Splitter(1420).split(memoryview(changed), kind, 1000, 40)
    assert refusal.value.reason == "tun_gso"


@pytest.mark.parametrize("segment", [8, 9, 16, 47, 48])
@pytest.mark.parametrize("version", [4, 6])
def test_a_whole_super_packet_of_tiny_segments_is_cut(segment, version):
    size = min(65535 - 60, segment * 1365)

    check_split(packets.tcp(payload_of(size), version=version), segment, 1420)


@pytest.mark.parametrize("flags", [ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | ECE | CWR | PSH])
def test_cwr_stays_on_the_first_and_fin_and_psh_on_the_last(flags):
    packet, virtio = packets.as_super_packet(packets.tcp(payload_of(3000), flags=flags), 1000)
    train = Splitter(1420).split(memoryview(packet), virtio[1], 1000, 20)

    first, middle, last = (each[20 + 13] for each in opened(sealed_train(train)))

    assert first == flags & ~(FIN | PSH)
    assert middle == flags & ~(FIN | PSH | CWR)
    assert last == flags & ~CWR


def test_ids_and_sequence_numbers_wrap_around():
    check_split(packets.tcp(payload_of(9000), sequence=2**32 - 1500, identifier=65534), 1000, 1420)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("over", [-1, 0, 1, 2, 8])
def test_ids_that_reach_the_end_count_on_from_zero(count, over):
    identifier = (0x10000 - count + over) & 0xFFFF

    check_split(packets.tcp(payload_of(100 * count), identifier=identifier), 100, 1420)


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("over", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("last", [100, 70])
def test_header_checksums_that_reach_zero_count_on_from_the_other_end(count, over, last):
    """Of the first segment; a super-packet's header has another length."""
    first = packets.tcp(payload_of(100), identifier=0)
    wanted = (count + over) % 0xFFFF
    identifier = (int.from_bytes(first[10:12], "big") - wanted) % 0xFFFF
    assert packets.tcp(payload_of(100), identifier=identifier)[10:12] == wanted.to_bytes(2, "big")
    body = payload_of(100 * (count - 1) + last)

    check_split(packets.tcp(body, identifier=identifier), 100, 1420)
    assert check_join(flow(count, 100, last, identifier=identifier)) == [count]


def test_a_udp_checksum_of_zero_is_written_as_ones():
    last = payload_with_a_zero_checksum(identifier=3)

    check_split(packets.udp(payload_of(200) + last, identifier=1), 100, 1420)


def test_the_parts_of_a_train_are_nearly_equal_and_in_order():
    packet, virtio = packets.as_super_packet(packets.tcp(payload_of(47 * 1368)), 1368)
    train = Splitter(1420).split(memoryview(packet), virtio[1], 1368, 20)

    sizes = [sum(map(len, part)) for part in train.parts()]

    assert [round(size / train.size) for size in sizes] == [23, 24]
    assert b"".join(b"".join(part) for part in train.parts()) == b"".join(train.full)


@examples(250)
@given(st.integers(1, 1400), st.integers(1, 65000))
def test_no_send_is_over_what_the_kernel_takes(segment, size):
    packet, virtio = packets.as_super_packet(packets.udp(payload_of(size)), segment)
    try:
        train = Splitter(1420).split(memoryview(packet), virtio[1], segment, 20)
    except PacketError:
        assert segment < 40  # with our overhead larger than the buffer
        return

    parts = train.parts()

    assert all(sum(map(len, part)) <= 65507 for part in parts)
    assert all(-(-sum(map(len, part)) // train.size) <= 64 for part in parts)
    assert b"".join(b"".join(part) for part in parts) == b"".join(train.full)
    assert len(train.full) == train.count == -(-size // segment)


def test_a_segment_larger_than_a_datagram_is_one_part():
    packet, virtio = packets.as_super_packet(packets.tcp(payload_of(65480)), 65479)
    train = Splitter(1420).split(memoryview(packet), virtio[1], 65479, 20)

    assert [sum(map(len, part)) for part in train.parts()] == [65479 + 40 + 32, 1 + 40 + 7 + 32]


WRONG = [
    ("a fragment", lambda p: p[:6] + b"\x20\0" + p[8:], 1, 500, 20),
    ("a later fragment", lambda p: p[:6] + b"\0\1" + p[8:], 1, 500, 20),
    ("another protocol", lambda p: p[:9] + b"\1" + p[10:], 1, 500, 20),
    ("UDP said, TCP there", lambda p: p, 5, 500, 20),
    ("an unknown type", lambda p: p, 3, 500, 20),
    ("csum_start elsewhere", lambda p: p, 1, 500, 24),
    ("no segment size", lambda p: p, 1, 0, 20),
    ("no payload", lambda p: p[:40], 1, 500, 20),
    ("half a header", lambda p: p[:30], 1, 500, 20),
    ("a short TCP header", lambda p: p[:32] + b"\x40" + p[33:], 1, 500, 20),
    ("a TCP header over the end", lambda p: p[:32] + b"\xf0" + p[33:50], 1, 500, 20),
    ("a short IP header", lambda p: b"\x44" + p[1:], 1, 500, 16),
    ("more rows than fit", lambda p: p + bytes(20000), 1, 1, 20),
]


@pytest.mark.parametrize(
    ("change", "kind", "segment", "start"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG]
)
def test_a_virtio_header_that_contradicts_the_packet_is_refused(change, kind, segment, start):
    packet = change(packets.tcp(payload_of(1200)))

    with pytest.raises(PacketError) as refusal:
        Splitter(1420).split(memoryview(packet), kind, segment, start)
    assert refusal.value.reason == "tun_gso"


@examples(250)
@given(
    st.binary(min_size=40, max_size=200),
    st.sampled_from([0x45, 0x46, 0x4F, 0x60]),
    st.sampled_from([1, 4, 5, 0x81, 0x84]),
    st.integers(0, 65535),
    st.sampled_from([20, 24, 40, 60]) | st.integers(0, 65535),
)
def test_any_bytes_with_any_virtio_header_give_a_train_or_a_refusal(packet, first, kind, segment, start):
    packet = bytes([first]) + packet[1:]
    packet = packet[:6] + bytes([6, 0]) + packet[8:9] + bytes([6 if kind & 7 != 5 else 17]) + packet[10:]
    try:
        train = Splitter(1420).split(memoryview(packet), kind, segment, start)
    except PacketError:
        return

    assert b"".join(b"".join(part) for part in train.parts()) == b"".join(train.full)


@pytest.mark.slow
@pytest.mark.parametrize(("layouts", "rows"), [(5, 10_000), (10_000, 40)])
def test_trains_remembered_are_bounded_in_number_and_in_rows(layouts, rows, monkeypatch):
    monkeypatch.setattr(split, "LAYOUTS", layouts)
    monkeypatch.setattr(split, "LAYOUT_ROWS", rows)
    splitter = Splitter(1420)

    for size in range(1, 200, 3):
        check_split(packets.udp(payload_of(size)), 7, 1420, splitter)

        assert len(splitter._trains) <= layouts
        assert sum(train.count for train, _ in splitter._trains.values()) <= rows


# Flows


@examples(250)
@given(st.binary(min_size=20, max_size=120), st.integers(0, 255))
def test_flow_of_takes_any_ipv4_bytes(packet, first):
    flow = flow_of(bytes([0x40 | first & 15]) + packet[1:])

    assert flow is None or flow.l4 + 8 <= flow.size <= len(packet)


@examples(250)
@given(st.binary(min_size=40, max_size=120))
def test_flow_of_takes_any_ipv6_bytes(packet):
    flow = flow_of(b"\x60" + packet[1:])

    assert flow is None or (flow.l4 == 40 and 48 <= flow.size <= len(packet))


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_with_half_a_header_of_tcp_or_udp_is_of_no_flow(make, version):
    packet = make(b"", version=version)

    assert flow_of(packet) is not None
    assert all(flow_of(packet[:size]) is None for size in range(20 if version == 4 else 40, len(packet)))


# Where headers are


@pytest.mark.parametrize("options", [bytes(6), bytes(14)])
@pytest.mark.parametrize(
    ("packet", "kind", "protocol", "size"),
    [
        (packets.udp(version=6), GSO_UDP_L4, packets.UDP, 8),
        (packets.tcp(version=6), GSO_TCPV6, packets.TCP, 20),
        (packets.tcp(version=6, tcp_options=bytes(12)), GSO_TCPV6, packets.TCP, 32),
    ],
)
def test_headers_behind_extensions_are_found_where_the_kernel_says_and_are_whole(
    packet, kind, protocol, size, options
):
    packet, at = packets.with_options(packet, options), 42 + len(options)

    def found(packet, at=at):
        return flow_behind_extensions(memoryview(packet), kind, at)

    assert found(packet) == found(packet + b"more") == Flow(6, protocol, at, at + size)
    assert all(found(packet[:end]) is None for end in range(1, at + size))
    assert all(found(packet + bytes(200), wrong) is None for wrong in (0, 20, 40, at + 1, at - 1))
    assert found(packets.udp(bytes(100))) is None
