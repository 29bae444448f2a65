from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.dscp import set_dscp
from tests import packets


@pytest.mark.parametrize("version", [4, 6])
@given(st.integers(0, 255), st.integers(0, 63), st.integers(0, 65535))
def test_dscp_is_written_and_nothing_else_but_the_checksum(version, tos, value, port):
    packet = bytearray(packets.udp(b"data", version=version, tos=tos, ports=(port, 1)))

    set_dscp(packet, value)

    assert bytes(packet) == packets.udp(b"data", version=version, tos=value << 2 | tos & 3, ports=(port, 1))
