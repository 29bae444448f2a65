from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.ip import packet_length
from overlay.wire.partial import may_be_partial
from tests import packets


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("build", [packets.tcp, packets.udp])
@given(field=st.integers(0, 0xFFFF), body=st.binary(max_size=5))
def test_the_sum_of_the_pseudo_header_modulo_0xffff_tells(version, build, field, body):
    packet = bytearray(build(body, version=version))
    start = packets.l4_start(packet)
    at = start + (16 if packets.protocol_of(packet) == 6 else 6)
    partial = packets.ones_complement_sum(packets.pseudo_header(bytes(packet), len(packet) - start))

    packet[at : at + 2] = partial.to_bytes(2, "big")
    assert may_be_partial(packet)
    packet[at : at + 2] = field.to_bytes(2, "big")
    assert may_be_partial(packet) == (field % 0xFFFF == partial % 0xFFFF)


@given(
    start=st.sampled_from([b"\x45", b"\x4f", b"\x60", b""]),
    body=st.binary(max_size=80),
    cut=st.integers(0, 80),
)
def test_any_whole_packet_is_answered(start, body, cut):
    payload = bytearray(start + body)
    if len(payload) > 6:
        payload[2:4] = payload[4:6] = cut.to_bytes(2, "big")
    try:
        packet = payload[: packet_length(payload)]
    except PacketError:
        return

    assert may_be_partial(packet) in {True, False}
