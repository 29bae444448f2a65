from __future__ import annotations

import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.forwarding.offload import split
from overlay.forwarding.offload.flow import (
    Flow,
    flow_behind_extensions,
    flow_of,
    may_go_on,
    padded,
    write_partial_checksum,
)
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.offload.split import ClearSplitter, Splitter
from overlay.wire.messages import TRANSPORT_HEADER, TYPE_TRANSPORT
from overlay.wire.virtio import GSO_TCPV6, GSO_UDP_L4
from tests import packets
from tests.hypothesis_profiles import examples
from tests.packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG

AEAD = ChaCha20Poly1305(bytes(32))
INDEX = 0x12345678


def payload_of(size, start=0):
    return bytes((start + at * 7) % 256 for at in range(size))


def sealed_train(train, counter=5):
    """Seal *train* as outbound does and return its datagrams, cut as the kernel cuts each send."""
    train.number(counter)
    for nonce, plain, sealed in zip(train.nonces, train.plain, train.sealed, strict=True):
        AEAD.encrypt_into(bytes(nonce), plain, None, sealed)
    train.address(INDEX)
    datagrams = []
    for part in train.parts():
        sent = b"".join(part)
        assert len(sent) <= 65507
        cut = [sent[at : at + train.size] for at in range(0, len(sent), train.size)]
        assert len(cut) <= 64
        datagrams += cut
    return datagrams


def opened(datagrams, counter=5):
    plaintexts = []
    for number, datagram in enumerate(datagrams):
        assert TRANSPORT_HEADER.unpack_from(datagram) == (TYPE_TRANSPORT, INDEX, counter + number)
        sealed = datagram[TRANSPORT_HEADER.size :]
        plaintexts.append(AEAD.decrypt(struct.pack("<4xQ", counter + number), sealed, None))
    return plaintexts


def with_padding(packet, mtu):
    return packet + bytes(padded(len(packet), mtu) - len(packet))


def check_split(packet, segment, mtu, splitter=None):
    """Compare the train of a super-packet with the kernel's segmentation, byte for byte after opening."""
    packet, virtio = packets.as_super_packet(packet, segment)
    _, kind, _, _, start, _ = struct.unpack("<BBHHHH", virtio)
    train = (splitter or Splitter(mtu)).split(memoryview(packet), kind, segment, start)

    plaintexts = opened(sealed_train(train))

    expected = packets.kernel_segments(packet, virtio)
    assert plaintexts == [with_padding(each, mtu) for each in expected]


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
    for _ in range(2):  # the second time every geometry is known
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
    """With a routing header the checksum is over the last destination: the kernel's partial sum alone has it."""
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
    """Of the first segment; that of a super-packet has another length."""
    first = packets.tcp(payload_of(100), identifier=0)
    wanted = (count + over) % 0xFFFF
    identifier = (int.from_bytes(first[10:12], "big") - wanted) % 0xFFFF
    assert packets.tcp(payload_of(100), identifier=identifier)[10:12] == wanted.to_bytes(2, "big")
    body = payload_of(100 * (count - 1) + last)

    check_split(packets.tcp(body, identifier=identifier), 100, 1420)
    assert check_join(flow(count, 100, last, identifier=identifier)) == [count]


def payload_with_a_zero_checksum(size=100, **fields):
    """Return a payload whose UDP checksum comes out as zero, which is written as ones."""
    for number in range(2**16):
        payload = number.to_bytes(2, "big").ljust(size, b".")
        packet = packets.udp(payload, **fields)
        if packet[packets.l4_start(packet) + 6 :][:2] == b"\xff\xff":
            return payload
    raise AssertionError


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
def test_trains_remembered_are_bounded(monkeypatch):
    splitter = Splitter(1420)
    for size in range(1, 2000, 3):
        check_split(packets.udp(payload_of(size)), 7, 1420, splitter)

    remembered = sum(train.count for train, _ in splitter._trains.values())

    assert len(splitter._trains) <= split.LAYOUTS
    assert remembered <= split.LAYOUT_ROWS


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


# Joining


def rows_of(inner, filler=0xEE, slack=0):
    """Lay *inner* out as opened datagrams of one receive: all as long as the longest but the last."""
    longest = max(map(len, inner)) + slack
    stride = 16 + longest + longest % 2 + 16
    last = 16 + len(inner[-1]) + 16
    buffer = bytearray([filler]) * (stride * (len(inner) + 1))
    for number, packet in enumerate(inner):
        at = number * stride + 16
        room = stride - 32 if number < len(inner) - 1 else last - 32
        buffer[at : at + room] = packet + bytes(room - len(packet))
    return Rows(np.frombuffer(buffer, dtype=np.uint8), memoryview(buffer), stride, len(inner), last)


def written(rows, inner, *, udp=True):
    """Return the packets that come out of the tun, and how many stood in each write."""
    runs = rows.runs(udp)
    if runs is None:
        return None
    assert [row for run in runs for row in range(run.first, run.first + run.count)] == list(range(len(inner)))
    out, counts = [], []
    for run in runs:
        counts.append(run.count)
        if run.count == 1:
            out.append(bytes(rows.plaintext(run.first)[: len(inner[run.first])]))
            continue
        assert all(packets.parsed(inner[row]) for row in range(run.first, run.first + run.count))
        data = b"".join(rows.super_packet(run))
        cut = packets.kernel_segments(data[10:], data[:10])
        assert len(cut) == run.count
        out += cut
    return out, counts


def check_join(inner, **how):
    """Join *inner* and compare with what went in and with the slow twin; return the sizes of the writes."""
    result = written(rows_of(inner, **how), inner)
    if result is None:
        return None
    out, counts = result
    assert out == inner
    assert counts == [len(group) for group in packets.join_slowly(inner)]
    return counts


def flow(count=4, size=100, last=None, **fields):
    """Return the segments of one TCP flow, as one sender's kernel cuts them."""
    last = last or size
    sequence, identifier = fields.pop("sequence", 1000), fields.pop("identifier", 50)
    final_flags = fields.pop("final_flags", fields.get("flags", ACK))
    made = []
    for number in range(count):
        is_last = number == count - 1
        ip = {"identifier": identifier + number} if fields.get("version", 4) == 4 else {}
        made.append(
            packets.tcp(
                payload_of(last if is_last else size, number),
                sequence=sequence + number * size,
                **{**fields, **ip, "flags": final_flags if is_last else fields.get("flags", ACK)},
            )
        )
    return made


def udp_flow(count=4, size=100, last=None, **fields):
    made = []
    for number in range(count):
        ip = {"identifier": 50 + number} if fields.get("version", 4) == 4 else {}
        made.append(
            packets.udp(payload_of(last if last and number == count - 1 else size, number), **fields, **ip)
        )
    return made


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize(
    ("size", "last"), [(100, 100), (100, 1), (101, 33), (1360, 1360), (1360, 7), (1, 1), (3, 2)]
)
@pytest.mark.parametrize("count", [2, 3, 44])
def test_the_segments_of_one_flow_become_one_packet(version, make, size, last, count):
    assert check_join(make(count, size, last, version=version)) == [count]


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 2**32 - 150},
        {"identifier": 65534},
        {"tcp_options": bytes(range(12))},
        {"tcp_options": bytes(range(40))},
        {"options": bytes([1]) * 8},
        {"tos": 0x02},
        {"tos": 0xB9},
        {"flags": ACK | ECE},
        {"final_flags": ACK | PSH},
        {"flags": ACK | ECE, "final_flags": ACK | ECE | PSH},
        {"fragment": 0},
        {"version": 6, "flow_label": 0x12345, "tos": 0x03},
        {"window": 0, "ttl": 1},
        {"reserved": 1},
    ],
    ids=repr,
)
def test_whatever_is_equal_in_all_segments_is_kept(fields):
    assert check_join(flow(**fields)) == [4]


@pytest.mark.parametrize(
    "flags", [ACK | FIN, ACK | SYN, ACK | RST, ACK | URG, ACK | CWR, 0, SYN, ACK | PSH | CWR]
)
@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_segment_with_a_flag_of_its_own_stays_alone(flags, row):
    inner = flow()
    inner[row] = packets.tcp(
        payload_of(100, row), sequence=1000 + row * 100, identifier=50 + row, flags=flags
    )

    assert 1 in check_join(inner)


def test_psh_ends_a_packet():
    inner = flow()
    inner[1] = packets.tcp(payload_of(100, 1), sequence=1100, identifier=51, flags=ACK | PSH)

    assert check_join(inner) == [2, 2]


CHANGES = {
    "ttl": {"ttl": 63},
    "tos": {"tos": 4},
    "ecn": {"tos": 1},
    "window": {"window": 999},
    "ack": {"acknowledgement": 2},
    "options": {"tcp_options": b"\1\1\1\0"},
    "id": {"identifier": 52},
    "same id": {"identifier": 50},
    "no DF": {"fragment": 0},
    "ports": {"ports": (1000, 2001)},
    "destination": {"destination": "10.0.0.3"},
    "source": {"source": "10.0.0.3"},
    "gap": {"sequence": 1101},
    "repeat": {"sequence": 1000},
    "urgent pointer": {"urgent": 1},
    "reserved bit": {"reserved": 8},
    "ece": {"flags": ACK | ECE},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_segments_that_differ_are_not_joined(change):
    fields = {"sequence": 1100, "identifier": 51, **change}
    inner = [flow()[0], packets.tcp(payload_of(100, 1), **fields), *flow()[2:]]

    counts = check_join(inner)

    assert counts[0] == 1


def test_ipv6_flow_labels_tell_flows_apart():
    inner = flow(version=6, flow_label=1)[:2] + flow(version=6, flow_label=2)[2:]

    assert check_join(inner) == [2, 2]


def test_a_shorter_segment_in_the_middle_ends_a_packet():
    short = packets.tcp(payload_of(60), sequence=1200, identifier=52)
    inner = [*flow()[:2], short, *flow(3, sequence=1260, identifier=53)]

    assert check_join(inner) == [3, 3]


def test_a_longer_segment_begins_a_packet():
    inner = [*flow(2, 60, sequence=880, identifier=48), *flow(3)]

    assert check_join(inner) == [2, 3]


def test_acknowledgements_are_not_joined_with_data():
    ack = packets.tcp(sequence=1200, identifier=52)
    inner = [*flow()[:2], ack, *flow()[2:]]

    assert check_join(inner) == [2, 1, 2]


def test_acknowledgements_alone_are_left_alone():
    assert check_join([packets.tcp(acknowledgement=number, identifier=number) for number in range(3)]) is None


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize("at", [-1, 50, 44])
def test_a_segment_with_a_bad_checksum_is_not_joined(row, version, make, at):
    inner = make(version=version)
    broken = bytearray(inner[row])
    broken[at if at < 0 else at + (version == 6) * 20] ^= 1
    inner[row] = bytes(broken)

    assert 1 in check_join(inner)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [({2}, [2, 1, 1]), ({0}, [1, 3]), ({3}, [3, 1]), ({0, 1, 2}, [1, 1, 1, 1]), ({0, 1, 2, 3}, [1, 1, 1, 1])],
)
@pytest.mark.parametrize("last", [100, 60])
def test_a_segment_with_a_bad_header_checksum_is_not_joined(bad, expected, last):
    inner = flow(last=last)
    for row in bad:
        inner[row] = inner[row][:10] + bytes([inner[row][10] ^ 1]) + inner[row][11:]

    assert check_join(inner) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lying", [{0, 1, 2}, {2}, {0, 1}])
@pytest.mark.parametrize("by", [0x100, 0x200, 1, -1])
def test_udp_that_lies_about_its_length_is_not_joined_even_where_the_sum_holds(version, lying, by):
    inner = udp_flow(3, size=300, version=version)
    for row in lying:
        packet = bytearray(inner[row])
        at = packets.l4_start(inner[row])
        length = int.from_bytes(packet[at + 4 : at + 6], "big") + by
        check = (int.from_bytes(packet[at + 6 : at + 8], "big") - by) % 0xFFFF
        packet[at + 4 : at + 8] = length.to_bytes(2, "big") + check.to_bytes(2, "big")
        inner[row] = bytes(packet)

    rows = rows_of(inner)

    joined = {
        row
        for run in rows.runs(udp=True) or []
        if run.count > 1
        for row in range(run.first, run.first + run.count)
    }
    assert not joined & lying


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize("lying", [{0}, {1}, {2}, {0, 1}, {0, 1, 2}])
@pytest.mark.parametrize("by", [2, 16])
def test_a_packet_that_claims_more_than_its_row_is_not_joined_even_where_the_sums_hold(
    make, version, lying, by
):
    inner = make(3, size=300, version=version)
    for row in lying:
        packet = bytearray(inner[row])
        start = packets.l4_start(inner[row])
        fields = [(2, by), (10, -by)] if version == 4 else [(4, by)]
        if make is udp_flow:
            fields += [(start + 4, by), (start + 6, -2 * by)]
        else:
            fields += [(start + 16, -by)]
        for at, more in fields:
            packet[at : at + 2] = ((int.from_bytes(packet[at : at + 2], "big") + more) % 0xFFFF).to_bytes(
                2, "big"
            )
        inner[row] = bytes(packet)
    rows = rows_of(inner)

    runs = rows.runs(udp=True) or []

    joined = {row for run in runs if run.count > 1 for row in range(run.first, run.first + run.count)}
    assert not joined & lying


@pytest.mark.parametrize("version", [4, 6])
def test_a_partial_sum_of_all_ones_is_folded_no_further(version):
    """To fold it again is to do so for ever."""
    packet = bytearray(packets.tcp(payload_of(100), version=version))
    at, end = (12, 20) if version == 4 else (8, 40)
    size, start = len(packet), packets.l4_start(packet)
    packet[at:end] = bytes(end - at)
    rest = packets.ones_complement_sum(packets.pseudo_header(bytes(packet), size - start))
    packet[at : at + 2] = (0xFFFF - rest).to_bytes(2, "big")

    offset = write_partial_checksum(packet, flow_of(bytes(packet)), size)

    assert offset == 16
    assert packet[start + 16 : start + 18] == b"\xff\xff"


def test_udp_without_a_checksum_is_not_joined():
    inner = [packet[:26] + b"\0\0" + packet[28:] for packet in udp_flow()]

    assert check_join(inner) == [1, 1, 1, 1]


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("shorter", [0, 10])
def test_udp_without_a_checksum_is_not_joined_even_where_the_sum_would_hold(row, shorter):
    inner = udp_flow(3, last=100 - shorter)
    size = 100 - shorter * (row == 2)
    packet = packets.udp(payload_with_a_zero_checksum(size, identifier=50 + row), identifier=50 + row)
    inner[row] = packet[:26] + b"\0\0" + packet[28:]

    assert check_join(inner) == [[1, 2], [1, 1, 1], [2, 1]][row]


def test_udp_is_not_joined_for_a_kernel_that_does_not_cut_it():
    assert rows_of(udp_flow()).runs(udp=False) is None


def test_fragments_are_not_joined():
    first = packets.udp(payload_of(100), fragment=0x2000)
    later = [packets.ipv4(payload_of(108), fragment=0x2000 | at) for at in (13, 26)]

    assert check_join([first, *later]) is None
    assert check_join([udp_flow()[0], first, *later]) == [1, 1, 1, 1]


def test_an_ipv6_extension_header_is_not_taken_for_tcp():
    extended = packets.ipv6(bytes([6, 0]) + bytes(6) + flow(version=6)[0][40:], protocol=60)

    assert check_join([extended, extended]) is None
    assert check_join([*flow(2, 108, version=6), extended]) == [2, 1]


def test_a_joined_packet_is_never_over_65535_bytes():
    counts = check_join(flow(50, 1400))

    assert counts == [46, 4]


@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize("size", [2, 600])
def test_at_most_64_are_joined(make, size):
    counts = check_join(make(109, size, 1))

    assert counts == [64, 45]


def test_at_most_64_are_joined_in_a_mixture():
    counts = check_join([*flow(70, 10), *flow(70, 10)])

    assert counts == [64, 6, 64, 6]


@pytest.mark.parametrize("version", [4, 6])
def test_padding_is_no_part_of_a_packet(version):
    assert check_join(flow(5, 90, 13, version=version), slack=7) == [5]


def test_a_length_field_beyond_the_row_is_no_segment():
    inner = flow()
    inner[1] = packets.with_ip_checksum(inner[1][:2] + b"\x05\0" + inner[1][4:])

    out, counts = written(rows_of(inner), inner)

    assert out == inner
    assert counts == [1, 1, 2]


@pytest.mark.parametrize("make", [flow, udp_flow])
@pytest.mark.parametrize("count", [2, 3])
def test_a_last_segment_that_was_cut_off_is_not_filled_up_with_zeros(make, count):
    inner = make(count)
    cut = packets.with_l4_checksum(inner[-1][:-20] + bytes(20))
    inner[-1] = cut[:-20]

    runs = rows_of(inner).runs(udp=True)

    assert runs[-1].count == 1


def test_rows_of_odd_length_are_left_to_the_slow_way():
    inner = flow(3, 101)
    rows = rows_of(inner)
    odd = Rows(rows.array, rows.view, rows.stride - 1, rows.count, rows.last)

    assert odd.runs(udp=True) is None


@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_with_psh_ends_what_a_receive_may_go_on_with(version):
    body = bytes(100)

    assert may_go_on(memoryview(packets.tcp(body, version=version, flags=ACK)))
    assert may_go_on(memoryview(packets.udp(body, version=version)))
    assert not may_go_on(memoryview(packets.tcp(body, version=version, flags=ACK | PSH)))
    assert not may_go_on(memoryview(packets.tcp(b"", version=version, flags=ACK)))


def test_one_row_has_nothing_to_join():
    assert rows_of(flow(1)).runs(udp=True) is None


@st.composite
def sequences(draw):
    """Packets as a tunnel carries them: pieces of flows with something wrong here and there."""
    version = draw(st.sampled_from([4, 4, 6]))
    inner = []
    sequence = draw(st.integers(0, 2**32 - 1) | st.just(2**32 - 300))
    identifier = draw(st.integers(0, 65535) | st.just(65533))
    size = draw(st.integers(1, 300))
    for _ in range(draw(st.integers(2, 12))):
        kind = draw(
            st.sampled_from(
                ["next"] * 8 + ["gap", "repeat", "flags", "short", "long", "other", "udp", "field"]
            )
        )
        fields = {"sequence": sequence, "version": version}
        flags = draw(st.sampled_from([ACK] * 6 + [ACK | PSH]))
        length = size
        if version == 4:
            fields["identifier"] = identifier
        if kind == "gap":
            fields["sequence"] = sequence = sequence + draw(st.integers(1, 3000))
        elif kind == "repeat" and inner:
            inner.append(inner[-1])
            continue
        elif kind == "flags":
            flags = draw(st.integers(0, 255))
        elif kind in {"short", "long"}:
            length = draw(st.integers(0, size) if kind == "short" else st.integers(size, size + 100))
        elif kind == "other":
            fields["ports"] = (3000, draw(st.integers(1, 3)))
        elif kind == "field":
            name = draw(st.sampled_from(["tos", "ttl", "window", "acknowledgement", "urgent", "reserved"]))
            fields[name] = draw(st.integers(0, 15))
        if kind == "udp":
            ip = {key: value for key, value in fields.items() if key != "sequence"}
            packet = packets.udp(payload_of(length), **ip)
        else:
            packet = packets.tcp(payload_of(length, draw(st.integers(0, 3))), flags=flags, **fields)
            sequence += length
        identifier += 1
        if draw(st.integers(0, 15)) == 0:
            broken = bytearray(packet)
            broken[draw(st.integers(1, len(packet) - 1))] ^= draw(st.integers(1, 255))
            packet = bytes(broken)
        inner.append(packet)
    return inner


@examples(800)
@given(sequences(), st.integers(0, 20))
@example(flow(3, 2), 0)
def test_what_is_joined_comes_apart_as_it_was(inner, slack):
    rows = rows_of(inner, slack=slack)
    # A length field that was broken makes another packet of the row, which may even be a right one.
    seen = [visible(bytes(rows.plaintext(row)), packet) for row, packet in enumerate(inner)]
    result = written(rows, seen)
    if result is not None:
        out, counts = result
        assert out == seen
        assert counts == [len(group) for group in like_the_first(packets.join_slowly(seen), seen[0])]


def like_the_first(groups, first):
    """Take apart the groups that have other header lengths than *first*: the columns of a table are the first row's."""
    for group in groups:
        if shape(group[0]) == shape(first):
            yield group
        else:
            yield from ([packet] for packet in group)


def shape(packet):
    if packet[0] >> 4 == 6:
        return packet[0], packet[6], packet[40 + 12] if packet[6] == packets.TCP else 0
    start = packets.l4_start(packet)
    return packet[0], packet[6:8], packet[9], packet[start + 12] if packet[9] == packets.TCP else 0


def visible(plaintext, packet):
    """Return the packet that *plaintext* holds by its own length field, or *packet* if that is none."""
    if packet[0] >> 4 == 4:
        length = int.from_bytes(packet[2:4], "big")
    else:
        length = 40 + int.from_bytes(packet[4:6], "big")
    return plaintext[:length] if 40 <= length <= len(plaintext) else packet


@examples(300)
@given(
    st.lists(st.binary(min_size=60, max_size=60), min_size=2, max_size=4), st.sampled_from([0x45, 0x60, 0x4F])
)
def test_any_bytes_are_joined_or_left_alone(inner, first):
    inner = [bytes([first]) + packet[1:] for packet in inner]
    rows = rows_of(inner)

    runs = rows.runs(udp=True)

    assert runs is None or all(run.count == 1 for run in runs)


# In the clear


@pytest.mark.parametrize("prefix", [b"", b"\0\0\x08\0", bytes(range(16))])
@pytest.mark.parametrize("version", [4, 6])
@given(size=st.integers(2, 20_000), segment=st.integers(256, 9000), is_tcp=st.booleans())
def test_a_train_in_the_clear_is_the_prefix_and_the_kernel_s_segments(prefix, version, size, segment, is_tcp):
    body = bytes(number * 7 % 251 for number in range(max(size, segment + 1)))
    whole = packets.tcp(body, version=version) if is_tcp else packets.udp(body, version=version)
    packet, virtio = packets.as_super_packet(whole, segment)
    _, kind, _, _, start, _ = struct.unpack("<BBHHHH", virtio)

    train = ClearSplitter(1472, len(prefix)).split(memoryview(packet), kind, segment, start)
    train.prefix(prefix)

    datagrams = []
    for part in train.parts():
        data = b"".join(part)
        assert len(data) <= 65507
        datagrams += [data[at : at + train.size] for at in range(0, len(data), train.size)]
    assert datagrams == [prefix + each for each in packets.kernel_segments(packet, virtio)]


def damaged(packet, at):
    """Return an IPv4 packet whose header is not what its checksum says."""
    return packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]


@pytest.mark.parametrize("make", [packets.tcp, packets.udp])
@pytest.mark.parametrize(
    "identifiers", [[0xFFFE] * 6, [0xFFFE, 0xFFFF, 7, 8, 9, 10], [0xFFFB] * 5 + [0xFFFF]]
)
def test_packets_whose_numbers_do_not_go_up_are_not_joined_at_the_end_of_the_numbers(make, identifiers):
    sequences = [{"sequence": 1 + 100 * number} if make is packets.tcp else {} for number in range(6)]
    inner = [
        make(bytes([number]) * 100, identifier=identifier, **more)
        for number, (identifier, more) in enumerate(zip(identifiers, sequences, strict=True))
    ]

    check_join(inner)


@pytest.mark.parametrize("rows", [[0], [5], [0, 5], [2], range(6)])
@pytest.mark.parametrize("at", [8, 10])
def test_packets_whose_ip_header_is_damaged_are_not_joined(rows, at):
    inner = [damaged(packet, at) if row in rows else packet for row, packet in enumerate(flow(6))]

    check_join(inner)


@pytest.mark.parametrize("identifier", [0, 1, 0xFFF0, 0xFFF9, 0xFFFA, 0xFFFB, 0xFFFF])
def test_packets_whose_ip_checksum_is_about_to_wrap_are_joined_as_they_are(identifier):
    check = int.from_bytes(flow(1, identifier=identifier)[0][10:12], "big")
    inner = flow(6, identifier=identifier, tos=0)
    wrapping = flow(6, identifier=(identifier + check) % 0xFFFF)

    assert check_join(inner)
    assert check_join(wrapping)


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
