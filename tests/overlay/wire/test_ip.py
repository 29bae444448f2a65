from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.ip import (
    checksum,
    decapsulated_ecn,
    ecn,
    ones_sum,
    packet_length,
    pseudo_header_sum,
    set_ecn,
)
from tests import packets
from tests.hypothesis_profiles import examples
from tests.refusals import refused

# Checksums


def test_the_example_of_rfc_1071():
    data = bytes.fromhex("0001f203f4f5f6f7")

    assert ones_sum(data) == 0xDDF2
    assert checksum(data) == 0xDDF2 ^ 0xFFFF


@examples(200)
@given(st.binary(max_size=100) | st.integers(0, 50).map(lambda n: b"\xff" * n))
def test_a_sum_is_the_one_taken_word_by_word(data):
    assert ones_sum(data) == packets.ones_complement_sum(data)


@examples(200)
@given(st.binary(max_size=50).map(lambda data: data + bytes(len(data) % 2)), st.binary(max_size=50))
def test_sums_of_parts_add_up(head, tail):
    assert checksum(tail, ones_sum(head)) == packets.internet_checksum(head + tail)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pseudo_header_is_summed(version):
    packet = packets.udp(b"hello", version=version)
    source, destination = (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])

    start = pseudo_header_sum(source, destination, packets.UDP, 13)

    assert checksum(packet[packets.l4_start(packet) :], start) == 0


@pytest.mark.parametrize(
    ("source", "length"), [(b"\xff\xff\0\0", 0), (b"\xff\xe6\0\0", 8), (b"\xff\xe5\0\0", 0x10008)]
)
def test_a_pseudo_header_that_sums_to_all_ones_is_folded_no_further(source, length):
    protocol = 0 if not length else packets.UDP

    assert pseudo_header_sum(source, bytes(4), protocol, length) == 0xFFFF


@pytest.mark.parametrize(
    ("data", "start"), [(b"\xff\xff", 0), (b"\0\1", 0xFFFE), (b"", 0xFFFF), (b"\xff\xff", 0xFFFF)]
)
def test_a_sum_of_all_ones_is_a_checksum_of_zero(data, start):
    assert checksum(data, start) == 0


# Lengths


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("padding", [0, 1, 15])
def test_a_packet_ends_where_it_says(version, padding):
    packet = packets.udp(b"hello", version=version)

    assert packet_length(packet + bytes(padding)) == len(packet)


@pytest.mark.parametrize(
    "packet", [packets.ipv4(b""), packets.ipv4(b"", options=bytes(40)), packets.ipv6(b"")]
)
@pytest.mark.parametrize("padding", [0, 1, 16])
def test_a_packet_may_be_nothing_but_its_header(packet, padding):
    assert packet_length(packet + bytes(padding)) == len(packet)


V4, V6 = packets.udp(b"hello"), packets.udp(b"hello", version=6)
NO_PACKET = {
    "nothing": (b"", "inner_short"),
    "version 5": (b"\x55" + V4[1:], "inner_version"),
    "a control message": (b"\x81" + bytes(50), "inner_version"),
    "half an IPv4 header": (V4[:19], "inner_short"),
    "half an IPv6 header": (V6[:39], "inner_short"),
    "an IPv4 packet cut off": (V4[:-1], "inner_length"),
    "an IPv6 packet cut off": (V6[:-1], "inner_length"),
    "a header longer than the packet": (b"\x4f" + V4[1:], "inner_length"),
    "a header shorter than a header": (b"\x44" + V4[1:], "inner_length"),
    "a length within the header": (V4[:2] + b"\0\x13" + V4[4:], "inner_length"),
}


@pytest.mark.parametrize(("payload", "reason"), NO_PACKET.values(), ids=NO_PACKET)
def test_anything_but_a_whole_packet_is_refused(payload, reason):
    with pytest.raises(PacketError) as refusal:
        packet_length(payload)
    assert refusal.value.reason == reason


@examples(200)
@given(st.binary(max_size=80), st.sampled_from([0x45, 0x60, 0x4F, 0x00]))
def test_any_bytes_give_a_length_or_the_one_error(payload, first):
    for data in (payload, bytes([first]) + payload):
        try:
            length = packet_length(data)
        except PacketError:
            continue
        assert 20 <= length <= len(data)


# ECN


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_the_ecn_field_is_written_and_nothing_else(version, before, after):
    packet = bytearray(packets.udp(b"hello", version=version, tos=0xB8 | before))
    assert ecn(packet) == before

    set_ecn(packet, after)

    assert packet == packets.udp(b"hello", version=version, tos=0xB8 | after)


@examples(200)
@given(st.integers(0, 65535), st.integers(0, 255), st.integers(0, 3), st.sampled_from([0, 0x4000]))
def test_the_header_checksum_follows_whatever_it_was(identifier, tos, after, fragment):
    packet = bytearray(packets.udp(b"", identifier=identifier, tos=tos, fragment=fragment))

    set_ecn(packet, after)

    assert packet == packets.udp(b"", identifier=identifier, tos=tos & 0xFC | after, fragment=fragment)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_a_header_checksum_may_become_zero_or_have_been_zero(before, after):
    """A sum of all ones is not folded again: folding it would never end."""
    for tos in (before, after):
        number = int.from_bytes(packets.ipv4(b"", identifier=0, tos=tos)[10:12], "big")
        assert packets.ipv4(b"", identifier=number, tos=tos)[10:12] == b"\0\0"
        packet = bytearray(packets.ipv4(b"", identifier=number, tos=before))

        set_ecn(packet, after)

        assert packet == packets.ipv4(b"", identifier=number, tos=after)


NOT_ECT, ECT_1, ECT_0, CE = range(4)
# RFC 6040 figure 4: a row for each inner field, a column for each outer one
TABLE = {
    #         Not-ECT  ECT(0)   ECT(1)   CE
    NOT_ECT: [NOT_ECT, NOT_ECT, NOT_ECT, None],
    ECT_0: [ECT_0, ECT_0, ECT_1, CE],
    ECT_1: [ECT_1, ECT_1, ECT_1, CE],
    CE: [CE, CE, CE, CE],
}


@pytest.mark.parametrize("inner", TABLE)
@pytest.mark.parametrize(("column", "outer"), list(enumerate([NOT_ECT, ECT_0, ECT_1, CE])))
def test_the_table_of_rfc_6040(inner, column, outer):
    expected = TABLE[inner][column]
    if expected is None:
        with refused("ecn"):
            decapsulated_ecn(inner, outer)
    else:
        assert decapsulated_ecn(inner, outer) == expected
