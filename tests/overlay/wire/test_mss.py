from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.wire.mss import clamp_mss
from tests import packets
from tests.packets import ACK

quick = settings(deadline=None, derandomize=True, max_examples=300)
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


@quick
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


@quick
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


@quick
@given(st.binary(min_size=40, max_size=128), st.integers(576, 9000))
def test_garbage_is_no_mishap(data, mtu):
    packet = bytearray(data)

    clamp_mss(packet, mtu)

    assert len(packet) == len(data)
