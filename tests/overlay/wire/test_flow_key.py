"""Keys of flows: literal, and a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.flow_key import SIZES, flow_key, parse_flow_key

CLIENT, VIP = bytes([10, 0, 0, 1]), bytes([203, 0, 113, 80])


@pytest.mark.parametrize(
    ("protocol", "key"),
    [(6, "0a000001cb0071500c350050"), (17, "0a000001cb0071500c35005011"), (1, "0a000001cb0071500c35005001")],
)
def test_key_is_addresses_ports_and_the_protocol_unless_it_is_tcp(protocol, key):
    assert flow_key(protocol, CLIENT, 3125, VIP, 80) == bytes.fromhex(key)


ports = st.integers(0, 65535)


@given(
    st.integers(0, 255),
    st.sampled_from([4, 16]).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)),
    ports,
    ports,
)
def test_key_is_read_back(protocol, addresses, port, other):
    flow = protocol, addresses[0], port, addresses[1], other
    key = flow_key(*flow)
    assert len(key) in SIZES
    assert parse_flow_key(key) == flow
