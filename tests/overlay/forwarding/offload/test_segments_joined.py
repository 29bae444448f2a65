"""Joining the segments of flows."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.forwarding.offload.flow import (
    flow_of,
    may_go_on,
    write_partial_checksum,
)
from overlay.forwarding.offload.join import Rows, Run
from overlay.forwarding.offload.split import ClearSplitter
from tests import packets
from tests.hypothesis_profiles import examples
from tests.overlay.forwarding.offload.trains import (
    check_join,
    flow,
    payload_of,
    payload_with_a_zero_checksum,
    rows_of,
    sequences,
    udp_flow,
    written,
)
from tests.packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG


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
    """Folding it again would never end."""
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


def test_a_shorter_last_segment_goes_with_as_many_as_fit_where_there_is_room():
    room = 65535 - 40 - 46 * 1400

    assert check_join(flow(47, 1400, 10)) == [47]
    assert check_join(flow(47, 1400, room)) == [47]
    assert check_join(flow(47, 1400, room + 1)) == [46, 1]


@pytest.mark.parametrize("version", [4, 6])
def test_segments_with_longer_headers_than_the_first_are_not_joined_though_their_numbers_fit(version):
    """What would fit if their headers were as long: numbers that go up by four more than the payloads are long."""
    longer = flow(3, 100, version=version, tcp_options=b"\1\1\1\0", sequence=1100, identifier=51)
    for row, segment in enumerate(longer):
        at = packets.l4_start(segment) + 4
        changed = segment[:at] + (1100 + row * 104).to_bytes(4, "big") + segment[at + 4 :]
        longer[row] = packets.with_l4_checksum(changed)

    assert rows_of([*flow(1, 104, version=version), *longer]).runs(udp=True) == [
        Run(row, 1) for row in range(4)
    ]


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
    """Split the groups whose headers differ in length from *first*: a table has the columns of the first row."""
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
    """Return the packet that *plaintext* contains according to its own length field, or *packet* if it
    contains none.
    """
    length = (
        int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
    )
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
    """Return an IPv4 packet whose header does not match its checksum."""
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
