"""Blocks of a pcapng file, byte by byte as the draft describes them (draft-ietf-opsawg-pcapng section 4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.capturing import pcapng
from overlay.capturing.pcapng import LINKTYPE_RAW, Interface


def test_section_has_the_byte_order_mark_and_the_application():
    expected = """
    0a0d0d0a 30000000
    4d3c2b1a 0100 0000 ffffffffffffffff
    0400 0900 6f7665726c61792031 000000
    0000 0000
    30000000
    """

    assert pcapng.section("overlay 1") == bytes.fromhex(expected)


def test_interface_has_its_link_type_its_name_and_nanoseconds():
    expected = """
    01000000 3c000000
    6500 0000 60000000
    0200 0400 6f3a696e
    0300 0100 64 000000
    0900 0100 09 000000
    0b00 0500 0069636d70 000000
    0000 0000
    3c000000
    """

    assert pcapng.interface(Interface("o:in", "d", LINKTYPE_RAW, 96, "icmp")) == bytes.fromhex(expected)


def test_packet_has_its_time_in_two_halves_and_a_comment():
    expected = """
    06000000 38000000
    01000000 05000000 07000000 03000000 64000000
    616263 00
    0100 0100 78 000000
    0200 0400 01000000
    0000 0000
    38000000
    """

    block = b"".join(pcapng.packet(1, 0x0000000500000007, b"abc", 100, "x", flags=pcapng.INBOUND))

    assert block == bytes.fromhex(expected)


@given(st.binary(max_size=100), st.text(max_size=50))
def test_every_block_ends_with_its_length_at_a_multiple_of_four(data, comment):
    block = b"".join(pcapng.packet(0, 1, data, len(data), comment))

    assert len(block) % 4 == 0
    assert block[4:8] == block[-4:] == len(block).to_bytes(4, "little")


def test_comment_that_is_too_long_is_cut():
    assert len(b"".join(pcapng.packet(0, 1, b"", 0, "x" * 100_000))) < 70_000


def test_packet_is_not_copied():
    data = memoryview(bytearray(60_000))

    assert pcapng.packet(0, 1, data, len(data))[1] is data
