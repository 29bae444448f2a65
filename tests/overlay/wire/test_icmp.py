from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.icmp import (
    Echo,
    in_ipv4,
    may_answer,
    told_mtu,
    too_big_v4,
    too_big_v6,
    unreachable_v4,
    unreachable_v6,
)
from tests import packets
from tests.hypothesis_profiles import examples
from tests.refusals import refused

ICMP, ICMPV6 = 1, 58
NODE_V4, NODE_V6 = ip_address("10.244.1.1").packed, ip_address("fd00:244:1::1").packed


# Errors


def read_error(packet, mtu=0):
    """Parse an ICMP error as RFC 792 and RFC 4443 draw it; return (source, destination, type, code, quoted)."""
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45
        assert struct.unpack("!H", packet[2:4])[0] == len(packet)
        assert packets.is_ip_checksum_right(packet)
        assert packet[9] == ICMP
        source, destination, message = packet[12:16], packet[16:20], packet[20:]
        assert packets.ones_complement_sum(message) == 0xFFFF
    else:
        assert packet[0] == 0x60
        assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40
        assert packet[6] == ICMPV6
        source, destination, message = packet[8:24], packet[24:40], packet[40:]
        pseudo = source + destination + struct.pack("!II", len(message), ICMPV6)
        assert packets.ones_complement_sum(pseudo + message) == 0xFFFF
    kind, code, _, value = struct.unpack("!BBHI", message[:8])
    assert value == mtu  # RFC 1191 section 4: 16 zeros and 16 bits
    return source, destination, kind, code, message[8:]


@pytest.mark.parametrize("size", [0, 1, 500, 519, 520, 521, 1400, 60_000])
def test_an_ipv4_error_quotes_as_much_as_576_bytes_take(size):
    packet = packets.udp(bytes(size))

    error = in_ipv4(unreachable_v4(packet), NODE_V4, packet[12:16])

    source, destination, kind, code, quoted = read_error(error)
    assert (source, destination, kind, code) == (NODE_V4, packet[12:16], 3, 1)
    assert quoted == packet[: len(quoted)]
    assert len(error) == min(576, len(packet) + 28)


def test_a_packet_too_big_is_answered_with_the_mtu():
    packet, packet6 = packets.udp(bytes(1400)), packets.udp(bytes(1400), version=6)

    error = read_error(in_ipv4(too_big_v4(packet, 1344), NODE_V4, packet[12:16]), 1344)
    error6 = read_error(too_big_v6(packet6, NODE_V6, 1344), 1344)

    assert error[:4] == (NODE_V4, packet[12:16], 3, 4)
    assert error6[:4] == (NODE_V6, packet6[8:24], 2, 0)
    assert packet.startswith(error[4])
    assert packet6.startswith(error6[4])


def test_the_mtu_in_errors_for_ipv6_is_never_below_1280():
    packet = packets.udp(bytes(1400), version=6)

    assert read_error(too_big_v6(packet, NODE_V6, 1200), 1280)[2:4] == (2, 0)


@pytest.mark.parametrize("size", [0, 1, 1183, 1184, 1185, 1400, 60_000])
def test_an_ipv6_error_quotes_as_much_as_1280_bytes_take(size):
    packet = packets.udp(bytes(size), version=6)

    error = unreachable_v6(packet, NODE_V6)

    source, destination, kind, code, quoted = read_error(error)
    assert (source, destination, kind, code) == (NODE_V6, packet[8:24], 1, 3)
    assert quoted == packet[: len(quoted)]
    assert len(error) == min(1280, len(packet) + 48)


def icmp(kind, **ip):
    return packets.ipv4(bytes([kind, 0]) + bytes(6), protocol=ICMP, **ip)


def icmp6(kind, **ip):
    return packets.ipv6(bytes([kind, 0]) + bytes(6), protocol=ICMPV6, **ip)


def extended(*headers, inner=b"\x80" + bytes(7)):
    """An IPv6 packet with extension headers, each (its number, its 6 bytes of data), before an ICMPv6 message."""
    numbers = [number for number, _ in headers] + [ICMPV6]
    chain = b"".join(
        bytes([after, 0]) + data.ljust(6, b"\0")
        for (_, data), after in zip(headers, numbers[1:], strict=True)
    )
    return packets.ipv6(chain + inner, protocol=numbers[0])


ERROR = b"\x01" + bytes(7)
ANSWERED = {
    "UDP": packets.udp(b"x"),
    "TCP": packets.tcp(b"x"),
    "an echo request": icmp(8),
    "an echo reply": icmp(0),
    "a first fragment": packets.udp(b"x", fragment=0x2000),
    "IPv4 with options": packets.udp(b"x", options=b"\1" * 8),
    "UDP over IPv6": packets.udp(b"x", version=6),
    "an IPv6 echo": icmp6(128),
    "an IPv6 echo behind options": extended((0, b""), (60, b"")),
    "a first IPv6 fragment": extended((44, b"\0\1\0\0\0\1")),
    "another protocol": packets.ipv6(b"x", protocol=132),
    "no next header": packets.ipv6(b"", protocol=59),
}
SILENT = {
    **{f"ICMP error {kind}": icmp(kind) for kind in (3, 4, 5, 11, 12)},
    **{f"ICMPv6 error {kind}": icmp6(kind) for kind in (1, 2, 3, 4, 127, 137)},
    "ICMP without a type": packets.ipv4(b"", protocol=ICMP),
    "ICMPv6 without a type": packets.ipv6(b"", protocol=ICMPV6),
    "a later fragment": packets.udp(b"x", fragment=0x0001),
    "a later fragment, high bits": packets.udp(b"x", fragment=0x1000),
    "a later IPv6 fragment": extended((44, b"\0\x08\0\0\0\1")),
    "a far IPv6 fragment": extended((44, b"\1\0\0\0\0\1")),
    "an ICMPv6 error behind options": extended((0, b""), (43, b""), (60, b""), inner=ERROR),
    "an ICMPv6 error in a first fragment": extended((44, b"\0\1\0\0\0\1"), inner=ERROR),
    "options cut off": packets.ipv6(b"\x3a\5" + bytes(6), protocol=60),
    "an option header cut off": packets.ipv6(b"\x3a", protocol=0),
    "to multicast": packets.udp(b"x", destination="224.0.0.251"),
    "to broadcast": packets.udp(b"x", destination="255.255.255.255"),
    "from multicast": packets.udp(b"x", source="224.0.0.1"),
    "from nobody": packets.udp(b"x", source="0.0.0.0"),
    "from loopback": packets.udp(b"x", source="127.0.0.1"),
    "to IPv6 multicast": packets.udp(b"x", version=6, destination="ff02::fb"),
    "from IPv6 multicast": packets.udp(b"x", version=6, source="ff02::1"),
    "from the unspecified address": packets.udp(b"x", version=6, source="::"),
}


@pytest.mark.parametrize("packet", ANSWERED.values(), ids=ANSWERED)
def test_an_error_may_be_sent_about(packet):
    assert may_answer(packet)


@pytest.mark.parametrize("packet", SILENT.values(), ids=SILENT)
def test_no_error_is_sent_about(packet):
    assert not may_answer(packet)


@examples(300)
@given(st.binary(min_size=40, max_size=120), st.sampled_from([0x45, 0x4F, 0x40, 0x60]))
def test_any_bytes_are_answered_or_not(data, first):
    packet = bytes([first]) + data[1:]
    if may_answer(packet):
        if first >> 4 == 4:
            read_error(in_ipv4(unreachable_v4(packet), NODE_V4, packet[12:16]))
        else:
            read_error(unreachable_v6(packet, NODE_V6))


# Echoes


# Checked by hand: 0800 + 0001 + 0002 + 6869 = 706c
PING = bytes.fromhex("08008f93000100026869")


def test_an_echo_request_has_these_bytes():
    echo = Echo(is_reply=False, identifier=1, sequence=2, data=b"hi")
    here = ip_address("10.0.0.1")

    assert echo.build(here, here) == PING
    assert Echo.parse(PING, 4) == echo


@examples(300)
@given(
    st.builds(Echo, st.booleans(), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=60)),
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4))
    | st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
def test_an_echo_reads_back_equal_and_its_checksum_holds(echo, addresses):
    source, destination = addresses
    message = echo.build(source, destination)

    pseudo = b""
    if source.version == 6:
        pseudo = source.packed + destination.packed + struct.pack("!II", len(message), ICMPV6)
    assert packets.ones_complement_sum(pseudo + message) == 0xFFFF
    assert Echo.parse(message, source.version) == echo


@examples(300)
@given(st.binary(max_size=40), st.sampled_from([4, 6]))
def test_any_bytes_give_an_echo_or_the_one_error(message, version):
    try:
        echo = Echo.parse(message, version)
    except PacketError:
        return
    assert echo.data == message[8:]


@pytest.mark.parametrize(
    ("message", "version"), [(PING, 6), (b"\x80" + PING[1:], 4), (PING[:7], 4), (b"", 6)]
)
def test_anything_but_an_echo_is_refused(message, version):
    with refused("not_echo"):
        Echo.parse(message, version)


@examples(300)
@given(st.integers(0, 0xFFFF), st.binary(max_size=100))
def test_what_an_error_tells_is_read_from_it_and_from_nothing_else(mtu, body):
    packet = packets.udp(body)
    told = in_ipv4(too_big_v4(packet, mtu), NODE_V4, NODE_V4)

    assert told_mtu(told) == mtu
    assert told_mtu(too_big_v6(packets.udp(body, version=6), NODE_V6, mtu)) == max(mtu, 1280)
    assert told_mtu(in_ipv4(unreachable_v4(packet), NODE_V4, NODE_V4)) is None
    assert told_mtu(unreachable_v6(packets.udp(body, version=6), NODE_V6)) is None
    with_length = told[:25] + b"\x20" + told[26:]  # RFC 4884 section 4.1: the length of what is quoted
    assert told_mtu(with_length) == mtu
    assert told_mtu(packet) is told_mtu(packets.udp(body, version=6)) is told_mtu(told[:27]) is None
