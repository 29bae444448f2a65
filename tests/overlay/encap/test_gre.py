from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.encap.encapsulation import Ends
from overlay.encap.gre import ENCAPSULATION, sequence, strip
from overlay.errors import PacketError
from tests import packets

ECHO = packets.ipv4(bytes.fromhex("0800f7fe00010000"), protocol=1)
IPV6 = packets.udp(b"x", version=6)

# The figures of RFC 2784 section 2 and RFC 2890 section 2, in bytes.
BASIC = bytes.fromhex("0000 0800")
KEYED = bytes.fromhex("2000 0800 0000002a")  # K, key 42
NUMBERED = bytes.fromhex("1000 0800 00000007")  # S, number 7
BOTH = bytes.fromhex("3000 86dd ffffffff 00000008")  # K and S, IPv6


def with_checksum(flags, rest, packet):
    """A payload with C: the flags, the EtherType and the rest of its header, and *packet*."""
    header = bytes([0x80 | flags]) + rest[:3]
    body = header + b"\0\0\0\0" + rest[3:] + packet
    value = packets.internet_checksum(body)
    return body[:4] + value.to_bytes(2, "big") + body[6:]


def test_what_is_sent_has_a_key_where_there_is_one_and_nothing_else():
    prefix = ENCAPSULATION.clear.prefix

    assert prefix(Ends()) == {4: BASIC, 6: bytes.fromhex("0000 86dd")}
    assert prefix(Ends(42)) == {4: KEYED, 6: bytes.fromhex("2000 86dd 0000002a")}
    assert prefix(Ends(0)) == {4: bytes.fromhex("2000 0800 00000000"), 6: bytes.fromhex("2000 86dd 00000000")}
    assert [ENCAPSULATION.overhead(4, ends) for ends in (Ends(), Ends(7))] == [24, 28]


@pytest.mark.parametrize(
    ("header", "packet", "key", "number"),
    [
        (BASIC, ECHO, None, None),
        (KEYED, ECHO, 42, None),
        (NUMBERED, ECHO, None, 7),
        (BOTH, IPV6, 0xFFFFFFFF, 8),
        (b"\x03\xf8" + BASIC[2:], ECHO, None, None),  # bits 6 to 12 "MUST be ignored"
    ],
)
def test_headers_of_the_documents_are_taken(header, packet, key, number):
    payload = header + packet + b"padding"

    assert strip(payload) == (len(header), len(header) + len(packet), key)
    assert sequence(payload) == number


@pytest.mark.parametrize(
    ("flags", "rest", "at", "key", "number"),
    [
        (0, bytes.fromhex("000800"), 8, None, None),
        (0x20, bytes.fromhex("000800 00000007"), 12, 7, None),
        (0x30, bytes.fromhex("000800 00000007 00000009"), 16, 7, 9),
    ],
)
@given(size=st.integers(0, 9), bit=st.integers(0, 8 * 28 - 1))
def test_a_right_checksum_is_taken_and_a_wrong_one_refused(flags, rest, at, key, number, size, bit):
    payload = with_checksum(flags, rest, ECHO + bytes(size))
    changed = bytearray(payload)
    changed[at + bit // 8] ^= 1 << bit % 8

    assert strip(payload) == (at, at + len(ECHO), key)
    assert sequence(payload) == number
    with pytest.raises(PacketError) as raised:
        strip(changed)
    assert raised.value.reason == "gre_checksum"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "gre_short"),
        (BASIC[:3], "gre_short"),
        (KEYED[:7], "gre_short"),
        (BOTH[:11], "gre_short"),
        (bytes.fromhex("0001 0800") + ECHO, "gre_version"),  # PPTP's is version 1
        (bytes.fromhex("0007 0800") + ECHO, "gre_version"),
        (bytes.fromhex("4000 0800") + ECHO, "gre_flags"),  # routing, of RFC 1701
        (bytes.fromhex("0800 0800") + ECHO, "gre_flags"),
        (bytes.fromhex("0400 0800") + ECHO, "gre_flags"),
        (bytes.fromhex("0000 6558") + ECHO, "gre_protocol"),  # Ethernet
        (bytes.fromhex("0000 86dd") + ECHO, "gre_protocol"),  # IPv4 said to be IPv6
        (BASIC + IPV6, "gre_protocol"),
        (BASIC, "inner_short"),
        (BASIC + ECHO[:-1], "inner_length"),
        (BASIC + b"\x50" + bytes(40), "inner_version"),
    ],
)
def test_what_is_refused_is_so_by_its_reason(payload, reason):
    with pytest.raises(PacketError) as raised:
        strip(payload)

    assert raised.value.reason == reason
