from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.headers import Upper, key_of, upper_of
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
    assert first == Upper(packets.UDP, 20, first.fragment)


def test_ipv6_fragments_are_told_apart_likewise():
    first, last, other = (
        upper_of(v6_fragment(bytes(24), offset, more=more, number=number))
        for offset, more, number in ((0, True, 5), (24, False, 5), (0, True, 6))
    )

    assert first.fragment == last.fragment != other.fragment
    assert (first.is_later, last.is_later) == (False, True)
    assert first == Upper(packets.UDP, 48, first.fragment)


def v4_fragment(at, value):
    """Return the name of a later IPv4 fragment that has another byte at *at*."""
    packet = bytearray(packets.ipv4(bytes(8), identifier=0x0102, fragment=0x2001))
    packet[at] ^= value
    return upper_of(packet).fragment


def test_ipv4_fragments_belong_together_by_addresses_identifier_and_protocol():
    name = v4_fragment(1, 0)

    changed = [at for at in range(1, 28) if at not in {6, 7} and v4_fragment(at, 1) != name]

    assert changed == [4, 5, 9, *range(12, 20)]


def test_ipv6_fragments_belong_together_by_addresses_and_identifier():
    packet = v6_fragment(bytes(24), 24)

    def name(at, value):
        return upper_of(packet[:at] + bytes([packet[at] ^ value]) + packet[at + 1 :]).fragment

    changed = [at for at in range(1, 64) if at not in {6, 42, 43} and name(at, 1) != name(1, 0)]
    assert changed == [*range(8, 40), *range(44, 48)]


@pytest.mark.parametrize("offset", [8 << bit for bit in range(13)])
def test_a_fragment_is_a_later_one_whatever_its_offset(offset):
    v4 = packets.ipv4(bytes(24), fragment=offset // 8)

    for packet in (v4, v6_fragment(bytes(24), offset, more=False)):
        upper = upper_of(packet)

        assert upper.is_later
        assert upper.fragment


@pytest.mark.parametrize("offset", [8 << bit for bit in range(13)])
def test_nothing_behind_the_header_of_a_later_fragment_is_taken_for_an_extension(offset):
    packet = v6_fragment(bytes([packets.UDP]) + bytes(23), offset, protocol=60)

    assert upper_of(packet)[:2] == (60, 48)


@pytest.mark.parametrize(
    ("packet", "size"),
    [
        (packets.ipv4(b""), 20),
        (packets.ipv4(b"", options=bytes(40)), 60),
        (packets.ipv6(b""), 40),
        (v6_fragment(b""), 48),
        (v6_fragment(b"", 64), 48),
        (packets.with_options(packets.ipv6(b"")), 48),
        (packets.with_options(packets.ipv6(b""), bytes(30)), 72),
    ],
)
def test_a_packet_that_ends_with_its_headers_carries_nothing(packet, size):
    assert len(packet) == size

    assert [upper_of(packet[:end]) for end in range(size + 1)] == [None] * (size + 1)
    assert upper_of(packet + b"x")[:2] == (packets.UDP, size)


@pytest.mark.parametrize("version", [0, 1, 5, 7, 15])
def test_a_packet_of_another_version_carries_nothing_that_is_known(version):
    assert upper_of(bytes([version << 4 | 5]) + packets.udp(b"x" * 40, version=6)[1:]) is None


@pytest.mark.parametrize("words", [0, 1, 2, 4])
def test_an_ipv4_header_of_less_than_20_bytes_is_none(words):
    assert upper_of(bytes([4 << 4 | words]) + packets.udp(b"x")[1:]) is None


def test_the_only_fragment_is_a_whole_packet():
    assert upper_of(v6_fragment(bytes(8), 0, more=False)) == Upper(packets.UDP, 48)


@given(
    st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60", b"\x60" + bytes(5) + b"\x2c"])
)
def test_garbage_has_an_upper_layer_inside_it_or_none(rest, start):
    packet = start + rest

    upper = upper_of(memoryview(packet))

    assert upper is None or 20 <= upper.at < len(packet)


@pytest.mark.parametrize("version", [4, 6])
def test_the_key_of_a_flow_is_addresses_ports_and_protocol(version):
    tcp, udp = packets.tcp(version=version, ports=(1, 2)), packets.udp(version=version, ports=(1, 2))
    ends = tcp[12:20] if version == 4 else tcp[8:40]

    assert key_of(tcp) == ends + bytes([0, 1, 0, 2])
    assert key_of(udp) == ends + bytes([0, 1, 0, 2, 17])


@pytest.mark.parametrize(
    "packet",
    [packets.ipv4(bytes(20), protocol=1), packets.udp()[:23], packets.ipv4(bytes(20), fragment=0x2000), b""],
    ids=["ICMP", "ports cut short", "fragment", "nothing"],
)
def test_what_has_no_ports_has_no_key(packet):
    assert key_of(packet) is None
