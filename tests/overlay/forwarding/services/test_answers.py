from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.answers import echo_reply, flags_of, refusal, reset
from tests import packets
from tests.packets import ACK, FIN, RST, SYN

ENDS = {
    4: {"source": "192.0.2.1", "destination": "192.0.2.100"},
    6: {"source": "2001:db8::1", "destination": "2001:db8::100"},
}
BACK = {
    version: {"source": ends["destination"], "destination": ends["source"]} for version, ends in ENDS.items()
}
both = pytest.mark.parametrize("version", [4, 6])


def at(packet):
    return packets.l4_start(packet)


def icmp(message, version, ends):
    """Return a packet with an ICMP message, whose checksum is computed here."""
    build, protocol = (packets.ipv4, 1) if version == 4 else (packets.ipv6, 58)
    packet = build(message[:2] + b"\0\0" + message[4:], protocol=protocol, **ends)
    start = at(packet)
    covered = (
        packet[start:]
        if version == 4
        else packets.pseudo_header(packet, len(packet) - start) + packet[start:]
    )
    return packet[: start + 2] + struct.pack("!H", packets.internet_checksum(covered)) + packet[start + 4 :]


def without_identifier(packet):
    """Return *packet* with the fields that a sender of IPv4 may choose set to zero."""
    if packet[0] >> 4 == 6:
        return packet
    return packets.with_ip_checksum(packet[:4] + bytes(4) + packet[8:])


@both
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40))
def test_segment_with_acknowledgement_is_reset_at_the_number_that_it_acknowledges(version, seq, ack, payload):
    segment = packets.tcp(
        payload,
        version=version,
        ports=(5000, 80),
        sequence=seq,
        acknowledgement=ack,
        flags=ACK,
        **ENDS[version],
    )

    answer = reset(segment, at(segment))

    expected = packets.tcp(
        version=version,
        ports=(80, 5000),
        sequence=ack,
        acknowledgement=0,
        flags=RST,
        window=0,
        **BACK[version],
    )
    assert without_identifier(answer) == without_identifier(expected)


@both
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(SYN, 1), (FIN, 1), (SYN | FIN, 2), (0, 0)]),
    st.binary(max_size=40),
    st.sampled_from([b"", bytes([2, 4, 5, 180])]),
)
def test_segment_without_acknowledgement_is_acknowledged_by_its_reset(version, seq, kind, payload, options):
    flags, counted = kind
    segment = packets.tcp(
        payload,
        version=version,
        ports=(5000, 80),
        sequence=seq,
        flags=flags,
        tcp_options=options,
        **ENDS[version],
    )

    answer = reset(memoryview(segment), at(segment))

    expected = packets.tcp(
        version=version,
        ports=(80, 5000),
        sequence=0,
        acknowledgement=seq + len(payload) + counted,
        flags=RST | ACK,
        window=0,
        **BACK[version],
    )
    assert without_identifier(answer) == without_identifier(expected)
    assert packets.is_l4_checksum_right(answer)
    assert packets.is_ip_checksum_right(answer)


@both
@pytest.mark.parametrize(
    ("sequence", "size", "flags", "expected"),
    [(2**32 - 1, 0, SYN, 0), (2**32 - 2, 5, FIN, 4), (2**32 - 1, 1, 0, 0), (7, 0, 0, 7)],
)
def test_a_reset_acknowledges_numbers_that_begin_anew_behind_the_last(
    version, sequence, size, flags, expected
):
    segment = packets.tcp(bytes(size), version=version, sequence=sequence, flags=flags, **ENDS[version])

    answer = reset(segment, at(segment))

    assert int.from_bytes(answer[at(answer) + 8 : at(answer) + 12], "big") == expected


@both
def test_a_segment_whose_header_claims_more_than_came_has_no_data(version):
    segment = bytearray(packets.tcp(version=version, sequence=7, flags=SYN, **ENDS[version]))
    segment[at(segment) + 12] = 0xF0

    answer = reset(segment, at(segment))

    assert int.from_bytes(answer[at(answer) + 8 : at(answer) + 12], "big") == 8


@both
def test_a_reset_is_not_answered(version):
    for flags in (RST, RST | ACK, RST | SYN):
        segment = packets.tcp(version=version, flags=flags, **ENDS[version])
        assert reset(segment, at(segment)) is None


def test_nobody_is_answered_who_is_no_single_host():
    for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
        segment = packets.tcp(flags=SYN, source=source, destination="192.0.2.100")
        assert reset(segment, 20) is None
        assert refusal(packets.udp(source=source), packets.UDP, 20) is None


@both
def test_a_segment_without_its_whole_header_is_not_answered(version):
    segment = packets.tcp(version=version, flags=SYN, **ENDS[version])

    assert reset(segment[:-1], at(segment)) is None
    assert refusal(segment[:-1], packets.TCP, at(segment)) is None


@both
def test_udp_is_refused_as_a_port_that_cannot_be_reached(version):
    packet = packets.udp(bytes(2000), version=version, **ENDS[version])

    answer = refusal(packet, packets.UDP, at(packet))

    kind, size = (bytes([3, 3]), 576) if version == 4 else (bytes([1, 4]), 1280)
    quoted = packet[: size - at(answer) - 8]
    assert answer == without_identifier(
        icmp(kind + bytes(6) + quoted, version, BACK[version] | fragmentable(version))
    )
    assert len(answer) == size


def fragmentable(version):
    return {"fragment": 0} if version == 4 else {}


@both
def test_an_echo_request_is_answered_with_what_it_carries(version):
    kind, reply = (8, 0) if version == 4 else (128, 129)
    request = icmp(bytes([kind, 0, 0, 0, 1, 2, 3, 4]) + b"payload", version, ENDS[version])

    answer = echo_reply(memoryview(request), at(request))

    expected = icmp(bytes([reply, 0, 0, 0, 1, 2, 3, 4]) + b"payload", version, BACK[version])
    assert without_identifier(answer) == without_identifier(expected)


@both
def test_other_messages_are_not_answered_as_echo_requests(version):
    for kind in (0, 3, 11, 13, 129, 1, 2):
        message = icmp(bytes([kind]) + bytes(11), version, ENDS[version])
        assert echo_reply(message, at(message)) is None
    request = icmp(bytes([8 if version == 4 else 128]) + bytes(7), version, ENDS[version])
    assert echo_reply(request[:-1], at(request)) is None


@both
def test_an_echo_request_with_a_code_or_of_no_single_host_is_not_answered(version):
    kind = 8 if version == 4 else 128
    sources = {4: ("0.0.0.0", "224.0.0.1"), 6: ("::", "ff02::1")}[version]
    requests = [icmp(bytes([kind, 1]) + bytes(10), version, ENDS[version])]
    requests += [
        icmp(bytes([kind, 0]) + bytes(10), version, {**ENDS[version], "source": each}) for each in sources
    ]

    assert [echo_reply(request, at(request)) for request in requests] == [None] * 3


def test_a_fragment_that_ends_before_the_flags_counts_as_data():
    segment = packets.tcp(flags=SYN)

    assert flags_of(segment, 20) == SYN
    assert flags_of(segment[:33], 20) == ACK
