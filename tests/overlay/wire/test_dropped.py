"""A forwarder's report of a dropped packet to a capture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.dropped import HEADER, LENGTH_AT, LONGEST, Dropped, DroppedKind

DROPPED = Dropped(DroppedKind.DATAGRAM, 7, 3, 300, 2, 1, b"abc", (bytes([192, 0, 2, 1]), 4500))
MESSAGE = bytes.fromhex(
    "02 04 0007 00000003 0000012c 00000002 0000000000000001 1194 0000c0000201000000000000000000000000 616263"
)

sources = st.none() | st.tuples(
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), st.integers(0, 65535)
)
values = st.builds(
    lambda kind, numbers, missed, data, more, source: Dropped(
        kind, numbers[0], numbers[1], len(data) + more, numbers[2], missed, data, source
    ),
    st.sampled_from(DroppedKind),
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=100),
    st.integers(0, 65536),
    sources,
)


def test_message_is_as_its_format_says():
    assert DROPPED.build() == MESSAGE
    assert Dropped.parse(MESSAGE) == DROPPED
    assert MESSAGE[LENGTH_AT : LENGTH_AT + 4] == (300).to_bytes(4, "big")


@given(values)
def test_what_is_built_is_read_back(value):
    assert Dropped.parse(value.build()) == value


@given(st.binary(max_size=200))
def test_garbage_raises_packet_error_alone(data):
    try:
        Dropped.parse(data)
    except PacketError as error:
        assert error.reason == "link"  # noqa: PT017  most bytes are not a message


@pytest.mark.parametrize("more", [1, 100])
def test_what_is_longer_than_any_packet_is_refused(more):
    with pytest.raises(PacketError):
        Dropped.parse(bytes(HEADER.size + LONGEST + more))
