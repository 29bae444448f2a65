from __future__ import annotations

import pytest

from overlay.forwarding.underlay.outer_header import IPV6, TOS, TTL_SHIFT, WHOLE, marks_of, ttl_of
from tests import packets


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0xB8, 0xFF])
def test_the_whole_traffic_class_is_copied(version, tos):
    packet = packets.udp(b"x", version=version, tos=tos)

    assert marks_of(packet) & TOS == tos


@pytest.mark.parametrize(
    ("packet", "is_whole"),
    [
        (packets.udp(b"x"), True),
        (packets.udp(b"x", fragment=0), False),
        (packets.udp(b"x", fragment=0x2000), False),
        (packets.udp(b"x", fragment=0x6000), True),
        (packets.udp(b"x", version=6), True),
    ],
)
def test_what_may_not_be_cut_inside_may_not_be_cut_outside(packet, is_whole):
    assert bool(marks_of(packet) & WHOLE) == is_whole
    assert bool(marks_of(packet) & IPV6) == (packet[0] >> 4 == 6)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("ttl", [0, 1, 64, 255])
def test_the_ttl_is_inherited_where_that_is_asked_for(version, ttl):
    packet = b"before" + packets.udp(b"x", version=version, ttl=ttl)

    assert ttl_of(packet, 6) == ttl
    assert marks_of(packet, 6) >> TTL_SHIFT & 0xFF == 0
    assert marks_of(packet, 6, inherits_ttl=True) >> TTL_SHIFT & 0xFF == ttl


def test_the_ttl_is_that_of_a_packet_at_the_start_unless_told_otherwise():
    assert ttl_of(packets.udp(b"x", ttl=77)) == 77
