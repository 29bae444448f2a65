from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.offload.partial import virtio_for
from overlay.forwarding.peer import LivePeer
from tests import packets
from tests.refusals import refused


def unfinished(packet):
    """Return *packet* as its kernel leaves it for the card."""
    return packets.as_super_packet(packet, 1)[0]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
@pytest.mark.parametrize("size", [0, 1, 500, 1300])
def test_a_checksum_left_partial_is_left_to_this_kernel_and_then_right(version, build, size):
    packet = packets.with_l4_checksum(packets.with_total_length(build(b"." * size, version=version)))
    left = unfinished(packet)

    header = virtio_for(LivePeer(1), memoryview(left), 1500)

    assert left != packet
    assert packets.kernel_segments(left, header) == [packet]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_a_checksum_that_is_right_or_wrong_stays_as_it_is(version, build):
    packet = build(b"payload", version=version)
    wrong = packet[:-1] + b"\0"

    assert (
        virtio_for(LivePeer(1), memoryview(packet), 1500)
        == virtio_for(LivePeer(1), memoryview(wrong), 1500)
        == packets.PLAIN
    )


@pytest.mark.parametrize("partial", [0, 0xFFFF])
def test_a_pseudo_header_whose_sum_is_zero_modulo_0xffff_leaves_0xffff(partial):
    packet = bytearray(packets.udp(bytes(24), source="10.0.0.1"))
    packet[16:20] = bytes(4)
    rest = packets.ones_complement_sum(packets.pseudo_header(bytes(packet), len(packet) - 20))
    packet[16:18] = (0xFFFF - rest).to_bytes(2, "big")
    packet[26:28] = partial.to_bytes(2, "big")

    is_left_partial = virtio_for(LivePeer(1), memoryview(packet), 1500) != packets.PLAIN

    assert is_left_partial == bool(partial)  # zero means no checksum (RFC 768)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
@given(field=st.integers(0, 0xFFFF), body=st.binary(max_size=5))
def test_only_the_sum_of_the_pseudo_header_is_taken_for_a_checksum_left_partial(version, build, field, body):
    packet = bytearray(build(body, version=version))
    start = packets.l4_start(packet)
    at = start + (16 if packets.protocol_of(packet) == 6 else 6)
    partial = packets.ones_complement_sum(packets.pseudo_header(bytes(packet), len(packet) - start))
    packet[at : at + 2] = field.to_bytes(2, "big")

    found = virtio_for(LivePeer(1), memoryview(packet), 1500)

    assert (found != packets.PLAIN) == (field == partial)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_a_checksum_that_is_right_and_the_sum_of_the_pseudo_header_too_is_the_same_afterwards(version, build):
    left = unfinished(build(bytes(2), version=version))
    start = packets.l4_start(left)
    rest = packets.ones_complement_sum(packets.pseudo_header(left, len(left) - start) + left[start:])
    packet = left[:-2] + (0xFFFF - rest).to_bytes(2, "big")

    header = virtio_for(LivePeer(1), memoryview(packet), 1500)

    assert packets.is_l4_checksum_right(packet)
    assert packets.kernel_segments(packet, header) == [packet]


@pytest.mark.parametrize(
    "packet",
    [
        unfinished(packets.udp(bytes(40), fragment=0x2000)),
        packets.ipv4(bytes(8), protocol=1),
        packets.ipv6(bytes(8), protocol=58),
        packets.ipv4(bytes(7)),
    ],
)
def test_what_has_no_such_checksum_stays_as_it_is(packet):
    assert virtio_for(LivePeer(1), memoryview(packet), 1500) == packets.PLAIN


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [packets.ACK, packets.ACK | packets.CWR | packets.PSH])
def test_a_super_packet_is_cut_by_this_kernel_so_that_it_fits(version, flags):
    body = bytes(range(256)) * 20 + b"!"
    left = unfinished(packets.tcp(body, version=version, flags=flags))

    segments = packets.kernel_segments(left, virtio_for(LivePeer(1), memoryview(left), 1400))

    headers = (20, 40)[version == 6] + 20
    assert b"".join(segment[headers:] for segment in segments) == body
    assert [len(segment) for segment in segments[:-1]] == [1400] * (len(segments) - 1)
    assert bool(virtio_for(LivePeer(1), memoryview(left), 1400)[1] & 0x80) == bool(flags & packets.CWR)


def test_datagrams_that_were_merged_are_refused_for_nobody_can_tell_them_apart():
    left = unfinished(packets.udp(bytes(3000)))

    with refused("udp_merged"):
        virtio_for(LivePeer(1), memoryview(left), 1400)


@pytest.mark.parametrize("version", [4, 6])
def test_segments_are_cut_as_they_were_where_that_can_be_told_and_as_the_last_where_not(version):
    peer, headers = LivePeer(1), (40, 60)[version == 6]

    def largest(payload, mtu=1400):
        left = unfinished(packets.tcp(bytes(payload), version=version))
        return max(map(len, packets.kernel_segments(left, virtio_for(peer, memoryview(left), mtu))))

    assert largest(10 * 1300 + 1) == 1400
    assert largest(10 * 1300) == headers + 1300
    assert largest(10 * 1300 + 1) == headers + 1300
    peer.unsealed.segment_limit = 1000
    assert largest(10 * 1300 + 1) == 1000
    assert largest(10 * 900) == headers + 900
    assert largest(10 * 900 + 1, 576) == 576


@pytest.mark.parametrize(("segment", "expected"), [(16, 14), (17, 1)])
def test_a_last_segment_size_that_larger_headers_leave_no_room_for_is_not_taken(segment, expected):
    peer = LivePeer(1)

    def segment_size(payload, options):
        left = unfinished(packets.tcp(bytes(payload), tcp_options=bytes([1] * options)))
        return int.from_bytes(virtio_for(peer, memoryview(left), 70)[4:6], "little")

    assert segment_size(2 * segment, 0) == segment
    assert (
        segment_size(29, 16) == expected
    )  # 56 of the 70 bytes are headers; the last packets had 40 + *segment*


@pytest.mark.parametrize("mtu", [70, 80])
def test_headers_that_leave_no_room_in_a_packet_are_refused(mtu):
    packet = bytearray(packets.tcp(b"x" * 60))
    packet[32] = 0xF0  # a TCP header of 60 bytes

    with refused("inner_length"):
        virtio_for(LivePeer(1), memoryview(unfinished(bytes(packet))), mtu)


@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
def test_a_packet_as_long_as_the_limit_is_not_cut(build):
    left = unfinished(build(bytes(1000)))

    header = virtio_for(LivePeer(1), memoryview(left), len(left))

    assert header[1] == 0
    assert header != packets.PLAIN


def test_datagrams_are_not_bound_by_what_segments_are():
    peer, left = LivePeer(1), unfinished(packets.udp(bytes(1200)))
    peer.unsealed.segment_limit = 1000

    header = virtio_for(peer, memoryview(left), 1400)

    assert header[1] == 0
    assert header != packets.PLAIN


def test_a_packet_that_is_not_cut_has_no_segment_size():
    left = unfinished(packets.tcp(b"x"))

    assert virtio_for(LivePeer(1), memoryview(left), 1400)[4:6] == bytes(2)
