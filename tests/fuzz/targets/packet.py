"""IP packets: lengths, ECN, checksums, ICMP, the SYN's segment size, fragments."""

from __future__ import annotations

import contextlib

from overlay.errors import PacketError
from overlay.forwarding.offload.flow import flow_of
from overlay.wire import fragments, icmp
from overlay.wire import ip as ip_header
from overlay.wire import mss as segment_size
from overlay.wire.icmp import Echo
from overlay.wire.partial import may_be_partial
from tests import packets


def whole(data):
    """Return the packet at the start of *data* as the packet path gets it from packet_length(), or nothing."""
    try:
        return bytearray(data[: ip_header.packet_length(data)])
    except PacketError:
        return None


def ip(data):
    packet = whole(data[1:])
    if packet is None:
        return
    assert 20 <= len(packet) < len(data)
    with contextlib.suppress(PacketError):
        ip_header.take_outer_ecn(packet, data[0] & 3)
    before = bytes(packet)
    ip_header.set_ecn(packet, data[0] & 3)
    assert ip_header.ecn(packet) == data[0] & 3
    assert len(packet) == len(before)
    may_be_partial(packet)


def icmp_errors(data):
    packet = whole(data)
    if packet is None:
        return
    told = icmp.told_mtu(packet)
    assert told is None or 0 <= told < 2**32
    if icmp.may_answer(packet):
        if packet[0] >> 4 == 4:
            answers = [icmp.in_ipv4(icmp.too_big_v4(packet, 1400), bytes(4), bytes(4))]
            answers.append(icmp.in_ipv4(icmp.unreachable_v4(packet), bytes(4), bytes(4)))
        else:
            answers = [icmp.too_big_v6(packet, bytes(16), 1400), icmp.unreachable_v6(packet, bytes(16))]
        for answer in answers:
            assert ip_header.packet_length(answer) == len(answer)
            assert not icmp.may_answer(answer)


def echo(data):
    for version in (4, 6):
        with contextlib.suppress(PacketError):
            Echo.parse(data, version)


def echo_seeds():
    for kind in (8, 0, 128, 129):
        yield bytes([kind, 0, 0, 0, 0, 7, 0, 1]) + b"payload"


def mss(data):
    packet = whole(data)
    if packet is None:
        return
    before, looked_at = bytes(packet), bytearray(packet)
    for mtu in (1280, 576):
        segment_size.clamp_mss(packet, mtu)
        segment_size.clamp_syn(looked_at, 0, len(packet), mtu, 1500)
        assert len(packet) == len(before)
        assert looked_at == packet  # the first check misses none
    assert not segment_size.clamp_mss(packet, 1280)  # it is clamped


def cut(data):
    packet = whole(data)
    if packet is None or not fragments.may_be_cut(packet):
        return
    for mtu in (68, 576, 1280):
        pieces = fragments.cut(packet, mtu)
        assert all(ip_header.packet_length(piece) == len(piece) for piece in pieces)
        assert all(len(piece) <= mtu for piece in pieces)
        assert all(packets.is_ip_checksum_right(piece) for piece in pieces)
        bodies = b"".join(piece[(piece[0] & 15) * 4 :] for piece in pieces)
        assert bodies == packet[(packet[0] & 15) * 4 :]


def headers(data):
    packet = whole(data)
    if packet is None:
        return
    flow = flow_of(memoryview(packet))
    assert flow is None or flow.l4 < flow.size <= len(packet)


def seeds():
    for version in (4, 6):
        yield packets.udp(b"payload", version=version)
        yield packets.tcp(b"payload", version=version)
        yield packets.tcp(version=version, flags=packets.SYN, tcp_options=bytes([2, 4, 0xFF, 0xFF]))
        yield packets.udp(bytes(1500), version=version)
    yield icmp.in_ipv4(
        icmp.too_big_v4(packets.udp(b"payload"), 1400), bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    )
    yield icmp.too_big_v6(packets.udp(b"payload", version=6), b"\xfd".ljust(16, b"\1"), 1400)
