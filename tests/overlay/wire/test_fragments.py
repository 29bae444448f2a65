from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.fragments import cut, may_be_cut
from tests import packets
from tests.hypothesis_profiles import examples

# RFC 791 section 3.1: security and loose source route are copied, record route and timestamp are not
SECURITY, ROUTE, RECORD = bytes([130, 4, 1, 2]), bytes([131, 3, 4]), bytes([7, 7, 4, 0, 0, 0, 0])


def with_ip_options(packet, options):
    options += bytes(-len(options) % 4)
    header = bytes([0x40 | (20 + len(options)) // 4]) + packet[1:20] + options
    return packets.with_total_length(header + packet[20:])


def with_flags(packet, flags, offset=0):
    word = flags << 13 | offset
    return packets.with_ip_checksum(packet[:6] + word.to_bytes(2, "big") + packet[8:])


def reassemble(pieces):
    """Join fragments as RFC 791 section 3.2 does, slowly, from any order; return the packet's payload."""
    whole, end = {}, None
    for piece in pieces:
        assert packets.is_ip_checksum_right(piece)
        assert int.from_bytes(piece[2:4], "big") == len(piece)
        at = (int.from_bytes(piece[6:8], "big") & 0x1FFF) * 8
        data = piece[packets.l4_start(piece) :]
        for number, byte in enumerate(data):
            assert at + number not in whole
            whole[at + number] = byte
        if not piece[6] & 0x20:
            end = at + len(data)
    assert sorted(whole) == list(range(end))
    return bytes(whole[at] for at in range(end))


@examples(300)
@given(size=st.integers(0, 4000), mtu=st.integers(68, 1500), options=st.sampled_from([b"", SECURITY, RECORD]))
def test_fragments_reassemble_to_the_original(size, mtu, options):
    packet = with_ip_options(with_flags(packets.udp(bytes(n % 251 for n in range(size))), 0), options)

    pieces = cut(packet, mtu)

    assert all(len(piece) <= mtu for piece in pieces)
    assert reassemble(reversed(pieces)) == packet[packets.l4_start(packet) :]
    assert {piece[4:6] + piece[1:2] + piece[8:10] + piece[12:20] for piece in pieces} == {
        packet[4:6] + packet[1:2] + packet[8:10] + packet[12:20]
    }


@examples(300)
@given(size=st.integers(0, 2000), mtu=st.integers(68, 900), again=st.integers(68, 900))
def test_fragments_can_be_cut_again(size, mtu, again):
    packet = with_flags(packets.udp(bytes(size)), 0)

    pieces = [smaller for piece in cut(packet, mtu) for smaller in cut(piece, again)]

    assert reassemble(pieces) == packet[20:]


def test_options_with_the_copied_flag_are_in_every_fragment_and_others_in_the_first():
    packet = with_ip_options(with_flags(packets.udp(bytes(900)), 0), RECORD + b"\1" + SECURITY + ROUTE)

    first, *later = cut(packet, 400)

    assert first[20 : packets.l4_start(first)] == packet[20 : packets.l4_start(packet)]
    assert later
    assert all(piece[20 : packets.l4_start(piece)] == SECURITY + ROUTE + b"\0" for piece in later)


@pytest.mark.parametrize("options", [b"\x82\0\0\0", b"\x82\1\0\0", b"\1\1\1\x82"])
def test_options_that_cannot_be_read_end_there(options):
    pieces = cut(with_ip_options(with_flags(packets.udp(bytes(900)), 0), options), 400)

    assert all(packets.l4_start(piece) <= 24 for piece in pieces[1:])
    assert len(reassemble(pieces)) == 908


def test_a_packet_that_fits_stays_whole():
    packet = with_flags(packets.udp(bytes(100)), 0)

    assert cut(packet, 128) == [packet]


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (with_flags(packets.udp(b"x"), 0), True),
        (with_flags(packets.udp(b"x"), 2), False),
        (packets.udp(b"x", version=6), False),
    ],
    ids=["free", "DF", "IPv6"],
)
def test_ipv4_without_df_alone_may_be_cut(packet, expected):
    assert may_be_cut(packet) is expected
