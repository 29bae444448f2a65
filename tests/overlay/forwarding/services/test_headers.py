from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.headers import Upper, upper_of
from tests import packets


def v6_fragment(data, offset=0, *, more=True, number=7, protocol=packets.UDP, **ip):
    header = bytes([protocol, 0]) + (offset | more).to_bytes(2, "big") + number.to_bytes(4, "big")
    return packets.ipv6(header + data, protocol=44, **ip)


@pytest.mark.parametrize("version", [4, 6])
def test_whole_packet_has_its_upper_layer_behind_its_header(version):
    assert upper_of(packets.udp(b"x", version=version)) == Upper(packets.UDP, 20 if version == 4 else 40)


def test_options_and_extensions_are_passed_over():
    assert upper_of(packets.udp(b"x", options=bytes([1, 1, 1, 0]))) == Upper(packets.UDP, 24)
    packet = packets.with_options(packets.with_options(packets.tcp(b"x", version=6)), bytes(14), kind=0)
    assert upper_of(packet) == Upper(packets.TCP, 64)


def test_fragments_of_one_packet_have_the_same_name_and_others_another():
    first, last, other = (
        upper_of(packets.ipv4(bytes(24), identifier=number, fragment=fragment))
        for number, fragment in ((5, 0x2000), (5, 0x0003), (6, 0x2000))
    )

    assert first.fragment == last.fragment != other.fragment
    assert (first.is_later, last.is_later) == (False, True)


def test_ipv6_fragments_are_told_apart_likewise():
    first, last, other = (
        upper_of(v6_fragment(bytes(24), offset, more=more, number=number))
        for offset, more, number in ((0, True, 5), (24, False, 5), (0, True, 6))
    )

    assert first.fragment == last.fragment != other.fragment
    assert (first.is_later, last.is_later) == (False, True)
    assert first == Upper(packets.UDP, 48, first.fragment)


def test_the_only_fragment_is_a_whole_packet():
    assert upper_of(v6_fragment(bytes(8), 0, more=False)) == Upper(packets.UDP, 48)


@given(
    st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60", b"\x60" + bytes(5) + b"\x2c"])
)
def test_garbage_has_an_upper_layer_inside_it_or_none(rest, start):
    packet = start + rest

    upper = upper_of(memoryview(packet))

    assert upper is None or 20 <= upper.at < len(packet)
