"""Positions of headers, and their checksums, each compared with a slow twin; test_segments tests
cutting and joining.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from overlay.forwarding.offload.flow import (
    Flow,
    check_ipv4,
    complement,
    flow_behind_extensions,
    flow_of,
    may_go_on,
    padded,
    sum_le,
    swap,
    write_ipv4_checksum,
    write_partial_checksum,
)
from overlay.wire.virtio import GSO_TCPV6, GSO_UDP_L4
from tests import packets
from tests.packets import ACK, PSH

MORE_FRAGMENTS = 0x2000


@pytest.mark.parametrize(
    ("length", "mtu", "expected"),
    [(0, 1420, 0), (1, 1420, 16), (16, 1420, 16), (17, 1420, 32), (1408, 1420, 1408), (1409, 1420, 1409), (1409, 1424, 1424)],
)  # fmt: skip
def test_a_packet_is_filled_up_to_a_multiple_of_16_unless_that_is_over_the_mtu(length, mtu, expected):
    assert padded(length, mtu) == expected


@pytest.mark.parametrize(
    "data", [b"", bytes(2), bytes(40), b"\xff\xff", b"\xff" * 40, b"\1\2", b"\xff\xfe\0\1", random.Random(1).randbytes(60)]
)  # fmt: skip
def test_a_sum_is_that_of_rfc_1071_with_its_bytes_the_other_way_round(data):
    assert sum_le(data) == swap(packets.ones_complement_sum(data))


def test_the_complement_of_a_sum_is_the_checksum_however_large_the_sum():
    sums = [1, 2, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 0x1FFFF, 2**32 - 2, 2**32 - 1]

    checksums = complement(np.array(sums, np.uint32)).tolist()

    assert checksums == [0xFFFF - (each % 0xFFFF or 0xFFFF) for each in sums]


@pytest.mark.parametrize("options", [b"", bytes([1]) * 4, bytes([1]) * 40])
def test_the_checksum_of_an_ipv4_header_is_right_with_all_of_its_options(options):
    packet = packets.udp(b"payload", identifier=0x1234, options=options)
    header = bytearray(packet)
    header[10:12] = b"\xab\xcd"

    write_ipv4_checksum(header)

    assert header == packet
    header[10:12] = bytes(2)
    assert check_ipv4(header) == int.from_bytes(packet[10:12], "big")


@pytest.mark.parametrize("size", [100, 0x0102])
@pytest.mark.parametrize("options", [b"", bytes([1]) * 8])
@pytest.mark.parametrize(("make", "offset"), [(packets.tcp, 16), (packets.udp, 6)])
@pytest.mark.parametrize("version", [4, 6])
def test_the_sum_of_a_pseudo_header_is_where_the_kernel_goes_on_with_it(version, make, offset, options, size):
    ip = {"options": options} if version == 4 else {}
    packet = bytearray(make(bytes(size), version=version, **ip))
    start = packets.l4_start(packet)
    before = bytes(packet)

    assert write_partial_checksum(packet, flow_of(before), len(packet)) == offset

    field = slice(start + offset, start + offset + 2)
    expected = packets.ones_complement_sum(packets.pseudo_header(before, len(before) - start))
    assert packet[field] == expected.to_bytes(2, "big")
    packet[field] = before[field]
    assert packet == before, "nothing else is changed"


def flow_slowly(packet):
    """Return the header positions, with each condition written separately."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
        is_fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF != 0
        if is_fragment or start < 20:
            return None
    elif packet[0] >> 4 == 6:
        start, protocol = 40, packet[6]
    else:
        return None
    rest = packet[start:]
    if protocol == 6:
        size = (rest[12] >> 4) * 4 if len(rest) >= 20 else 0
        return Flow(packet[0] >> 4, 6, start, start + size) if 20 <= size <= len(rest) else None
    return Flow(packet[0] >> 4, 17, start, start + 8) if protocol == 17 and len(rest) >= 8 else None


WHOLE = [
    packets.tcp(b"x" * 30),
    packets.tcp(b"x" * 30, options=bytes([1]) * 40, tcp_options=bytes([1]) * 40),
    packets.tcp(b"", tcp_options=bytes([1]) * 4),
    packets.udp(b"x" * 30),
    packets.udp(b"", options=bytes([1]) * 4),
    packets.udp(b"x" * 30, fragment=MORE_FRAGMENTS),
    packets.udp(b"x" * 30, fragment=1),
    packets.udp(b"x" * 30, fragment=0),
    packets.tcp(b"x" * 30, version=6),
    packets.tcp(b"", version=6, tcp_options=bytes([1]) * 40),
    packets.udp(b"x" * 30, version=6),
    packets.udp(b"", version=6),
    packets.with_options(packets.udp(b"x" * 30, version=6)),
    packets.ipv4(b"x" * 30, protocol=1),
]


@pytest.mark.parametrize("packet", WHOLE, ids=range(len(WHOLE)))
def test_the_headers_of_a_packet_are_where_a_slow_look_finds_them_whatever_is_cut_off_or_changed(packet):
    least = 40 if packet[0] >> 4 == 6 else 20
    cut = [packet[:size] for size in range(least, len(packet) + 1)]
    start = packets.l4_start(packet)
    places = {0, 6, 7, 9, *range(start + 12, min(start + 14, len(packet)))} - (set(range(len(packet), 100)))
    changed = [
        packet[:at] + bytes([packet[at] ^ 1 << bit]) + packet[at + 1 :] for at in places for bit in range(8)
    ]

    for each in [*cut, *changed]:
        assert flow_of(each) == flow_slowly(each) == flow_of(memoryview(each))


@pytest.mark.parametrize(("make", "kind"), [(packets.tcp, GSO_TCPV6), (packets.udp, GSO_UDP_L4)])
def test_the_headers_behind_extensions_are_where_the_kernel_says_if_they_fit(make, kind):
    packet = packets.with_options(make(b"x" * 5, version=6))
    start = packets.l4_start(packet)
    protocol, size = (6, 20) if make is packets.tcp else (17, 8)

    def found(packet, at=start):
        return flow_behind_extensions(memoryview(packet), kind, at)

    assert found(packet) == Flow(6, protocol, start, start + size)
    assert [cut for cut in range(1, len(packet)) if found(packet[:cut])] == list(
        range(start + size, len(packet))
    )
    assert [at for at in (0, 38, 40, 41, start - 1, start, start + 1) if found(packet, at)] == [start]
    assert make is packets.tcp or found(packet, 42) == Flow(6, 17, 42, 50), "the kernel's value is used"
    assert found(b"\x45" + packet[1:]) is None
    if make is packets.tcp:
        lengths = [
            length
            for length in range(16)
            if found(packet[: start + 12] + bytes([length << 4]) + packet[start + 13 :])
        ]
        assert lengths == [5, 6], "at least a header, and no more than the packet"


@pytest.mark.parametrize("version", [4, 6])
def test_a_receive_goes_on_behind_what_is_long_enough_to_tell_and_has_no_push(version):
    headers = {4: 40, 6: 60}[version]

    def goes_on(make, size, **how):
        return may_go_on(memoryview(make(bytes(size), version=version, **how)))

    assert [goes_on(packets.tcp, size - headers, flags=ACK) for size in (73, 74)] == [False, True]
    assert [goes_on(packets.udp, size - headers + 12) for size in (73, 74)] == [False, True]
    assert not goes_on(packets.tcp, 100, flags=ACK | PSH)
    assert goes_on(packets.tcp, 100, flags=255 & ~PSH)
    assert goes_on(packets.udp, 100)
    if version == 4:
        options = {"options": bytes([1]) * 40}
        assert goes_on(packets.tcp, 100, flags=ACK, **options)
        assert not goes_on(packets.tcp, 100, flags=ACK | PSH, **options)
