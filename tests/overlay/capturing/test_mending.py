"""Checksums that the kernel has left out, and headers that it has removed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.capturing.mending import complete, with_headers
from overlay.wire.ip import checksum, packet_length, pseudo_header_sum
from tests.overlay.capturing.datagrams import udp


def test_partial_checksum_is_finished():
    whole = udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd")
    partial = bytearray(whole)
    partial[26:28] = pseudo_header_sum(whole[12:16], whole[16:20], 17, 12).to_bytes(2, "big")

    assert complete(partial, 20, 6)
    assert bytes(partial) == whole


def test_one_that_lies_outside_is_left():
    packet = bytearray(b"abc")

    assert not complete(packet, -1, 6)
    assert not complete(packet, 2, 6)
    assert packet == b"abc"


@given(
    st.binary(max_size=100),
    st.sampled_from([None, (bytes([192, 0, 2, 1]), 7), (bytes(15) + b"\1", 65535)]),
    st.integers(0, 70_000),
)
def test_datagram_gets_headers_that_hold(payload, source, more):
    packet, length = with_headers(payload, len(payload) + more, source, 51820)

    assert length == len(packet) + more
    if not more:
        assert packet_length(packet) == len(packet)
        if packet[0] >> 4 == 4:
            assert checksum(packet[:20]) == 0
