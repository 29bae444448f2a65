from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.mss import clamp_mss, clamp_syn
from tests import packets
from tests.hypothesis_profiles import examples
from tests.packets import ACK

SYN = 2
HEADERS = {4: 40, 6: 60}
USUAL = b"\4\2\1\1"  # SACK permitted, and two of no operation


def syn(mss, version=4, before=b"", after=USUAL, flags=SYN, **tcp):
    options = before + b"\2\4" + struct.pack("!H", mss) + after
    return packets.tcp(
        b"", version=version, flags=flags, tcp_options=options + bytes(-len(options) % 4), **tcp
    )


def mss_of(packet):
    """Read the MSS option as RFC 9293 draws it."""
    options = packet[packets.l4_start(packet) + 20 :]
    while options and options[0]:
        if options[0] == 2:
            return struct.unpack("!H", options[2:4])[0]
        options = options[1:] if options[0] == 1 else options[options[1] :]
    return None


@examples(300)
@given(
    mss=st.integers(0, 65535),
    mtu=st.integers(1280, 65535),
    version=st.sampled_from([4, 6]),
    before=st.sampled_from([b"", b"\1", b"\1\1", b"\3\3\7", b"\x0a\x06abcd"]),
    flags=st.sampled_from([SYN, SYN | ACK]),
)
def test_a_larger_mss_becomes_what_fits_and_the_checksum_follows(mss, mtu, version, before, flags):
    before_it = syn(mss, version, before, flags=flags)
    packet = bytearray(before_it)

    changed = clamp_mss(packet, mtu)

    assert mss_of(packet) == min(mss, mtu - HEADERS[version])
    assert changed == (mss > mtu - HEADERS[version])
    assert packets.is_l4_checksum_right(bytes(packet))
    assert changed or packet == before_it


@examples(300)
@given(mss=st.integers(1241, 65535), version=st.sampled_from([4, 6]))
def test_a_partial_checksum_stays_and_is_right_once_it_is_completed(mss, version):
    whole, virtio = packets.as_super_packet(syn(mss, version), 1000)
    packet = bytearray(whole)
    start = packets.l4_start(whole)

    assert clamp_mss(packet, 1280, is_partial=True)

    assert packet[start + 16 : start + 18] == whole[start + 16 : start + 18]
    (done,) = packets.kernel_segments(bytes(packet), virtio[:1] + b"\0" + virtio[2:])
    assert packets.is_l4_checksum_right(done)


def test_ipv6_is_never_clamped_below_what_every_link_takes():
    packet = bytearray(syn(1440, 6))

    clamp_mss(packet, 1000)

    assert mss_of(packet) == 1220


@pytest.mark.parametrize(
    "packet",
    [
        packets.tcp(b"x" * 20, flags=ACK),
        packets.tcp(b"", flags=SYN),
        packets.tcp(b"", flags=SYN, tcp_options=b"\2\3\xff\xff"),
        packets.tcp(b"", flags=SYN, tcp_options=b"\3\0\2\4\xff\xff\0\0"),
        packets.tcp(b"", flags=SYN, tcp_options=b"\1\1\1\2"),
        packets.tcp(b"", flags=SYN, tcp_options=b"\0\2\4\xff\xff\0\0\0"),
        packets.udp(b"\2" * 40),
        packets.udp(b"\2" * 40, version=6),
    ],
    ids=["no SYN", "no option", "short option", "empty option", "cut off", "after the end", "UDP", "UDP6"],
)
def test_anything_else_is_left_alone(packet):
    copy = bytearray(packet)

    assert not clamp_mss(copy, 100)
    assert copy == packet
    assert clamped(packet, 1280, 1280) == packet


@examples(300)
@given(st.binary(min_size=40, max_size=128), st.integers(576, 9000))
def test_garbage_does_no_harm(data, mtu):
    packet = bytearray(data)

    clamp_mss(packet, mtu)

    assert len(packet) == len(data)


EXTENSIONS = {
    "hop by hop": lambda packet: extended(packet, 0),
    "routing": lambda packet: extended(packet, 43),
    "destination options": lambda packet: extended(packet, 60),
    "several": lambda packet: extended(extended(extended(packet, 60), 43, 2), 0, 1),
    "a fragment that is the whole": lambda packet: extended(packet, 44, body=bytes([0, 0, 0, 0, 0, 7])),
}


def extended(packet, kind, units=0, body=None):
    """Return an IPv6 packet with one more extension header, of 8 bytes and 8 for each of *units*, in front."""
    body = body or bytes([1, 4 + 8 * units, *bytes(4 + 8 * units)])
    header = bytes([packet[6], units]) + body if kind != 44 else bytes([packet[6], 0]) + body
    longer = packet[:6] + bytes([kind]) + packet[7:40] + header + packet[40:]
    return longer[:4] + struct.pack("!H", len(longer) - 40) + longer[6:]


def plain(packet, size):
    """Return *packet* without *size* bytes behind its IPv6 header."""
    shorter = packet[:6] + b"\6" + packet[7:40] + packet[40 + size :]
    return shorter[:4] + struct.pack("!H", len(shorter) - 40) + shorter[6:]


def clamped(packet, mtu, path_mtu, **how):
    """Return *packet* as it leaves the packet path, which has it between others."""
    buffer = bytearray(b"\x45" * 7 + packet + b"\x02" * 60)
    clamp_syn(buffer, 7, 7 + len(packet), mtu, path_mtu, **how)
    assert (buffer[:7], buffer[7 + len(packet) :]) == (b"\x45" * 7, b"\x02" * 60)
    return bytes(buffer[7 : 7 + len(packet)])


@pytest.mark.parametrize("size", [0, 100, 1300])
@pytest.mark.parametrize("options", [b"", bytes([1]) * 4, bytes([1]) * 40])
def test_a_syn_of_any_size_and_with_any_ipv4_options_is_clamped_to_what_fits_without_them(size, options):
    made = packets.tcp(
        bytes(size), flags=SYN, options=options, tcp_options=b"\2\4" + struct.pack("!H", 1460) + USUAL
    )
    packet = bytearray(made)

    at_once = clamped(bytes(packet), 1500, 1400)
    assert clamp_mss(packet, 1400)

    assert mss_of(bytes(packet)) == 1360
    assert bytes(packet) == at_once == clamped(made, 1400, 1500)
    assert packets.is_l4_checksum_right(bytes(packet))


@pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS)
def test_a_syn_behind_ipv6_extension_headers_is_clamped(extension):
    whole = syn(1440, 6)
    packet = bytearray(extension(whole))
    added = len(packet) - len(whole)

    at_once = clamped(bytes(packet), 1500, 1400)
    assert clamp_mss(packet, 1400)
    assert bytes(packet) == at_once

    inner = plain(bytes(packet), added)
    assert mss_of(inner) == 1340
    assert packets.is_l4_checksum_right(inner)


@pytest.mark.parametrize(
    "packet",
    [
        extended(syn(1440, 6), 44, body=bytes([0, 8, 0, 0, 0, 7])),
        extended(syn(1440, 6), 44, body=bytes([1, 0, 0, 0, 0, 7])),
        extended(syn(1440, 6), 0)[:46],
        extended(packets.udp(b"\2" * 40, version=6), 0),
        packets.with_ip_checksum(syn(1460)[:6] + b"\0\1" + syn(1460)[8:]),
    ],
    ids=["a later fragment", "one far behind", "cut off", "UDP", "IPv4's"],
)
def test_anything_but_a_syn_after_its_headers_is_left_alone(packet):
    copy = bytearray(packet)

    assert not clamp_mss(copy, 100)
    assert copy == packet
    assert clamped(packet, 1280, 1280) == packet


@examples(300)
@given(
    version=st.sampled_from([4, 6]),
    flags=st.integers(0, 255),
    size=st.integers(0, 200),
    options=st.sampled_from([0, 4, 40]),
    is_tcp=st.booleans(),
)
def test_among_other_packets_a_syn_is_clamped_and_nothing_else_is_touched(
    version, flags, size, options, is_tcp
):
    ip = {"options": bytes([1]) * options} if version == 4 else {}
    if is_tcp:
        announced = {"tcp_options": b"\2\4" + struct.pack("!H", 1460) + USUAL}
        packet = packets.tcp(bytes(size), version=version, flags=flags, **announced, **ip)
    else:
        packet = packets.udp(bytes([flags]) * size, version=version, **ip)
    alone = bytearray(packet)

    assert clamp_mss(alone, 1300) == (is_tcp and bool(flags & SYN))

    assert clamped(packet, 1300, 1500) == alone
