"""The line about a packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.capturing.summary import summarize, summarize_frame
from tests.overlay.capturing.datagrams import udp


@pytest.mark.parametrize(
    ("packet", "line"),
    [
        (udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd"), "10.0.0.1.5 > 10.0.0.2.53: UDP, length 4"),
        (udp("fd00::1", "fd00::2", 5, 53, b"abcd"), "fd00::1.5 > fd00::2.53: UDP, length 4"),
        (b"\x45" + bytes(5), "not an IP packet, length 6"),
        (b"", "not an IP packet, length 0"),
    ],
)
def test_packet_is_described_in_one_line(packet, line):
    assert summarize(packet, len(packet)) == line


def test_tcp_has_its_flags_as_tcpdump_writes_them():
    header = bytes.fromhex("01bbc35000000001000000025012000000000000")
    packet = udp("10.0.0.1", "10.0.0.2", 1, 2, bytes(20))
    packet = packet[:9] + b"\x06" + packet[10:20] + header

    assert summarize(packet, 40) == "10.0.0.1.443 > 10.0.0.2.50000: TCP [S.], seq 1, ack 2, length 0"


def test_later_fragments_have_no_ports():
    packet = bytearray(udp("10.0.0.1", "10.0.0.2", 5, 53, b"abcd"))
    packet[6:8] = (185).to_bytes(2, "big")

    assert summarize(packet, 1000) == "10.0.0.1 > 10.0.0.2: fragment at 1480, length 1000"


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x60", b"\x4f"]))
def test_any_bytes_are_one_printable_line(data, start):
    for line in (summarize(start + data, 9), summarize_frame(start + data, 9)):
        assert line.isascii()
        assert line.isprintable()
