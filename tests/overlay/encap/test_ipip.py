from __future__ import annotations

import pytest

from overlay.encap.encapsulation import Ends
from overlay.encap.ipip import ENCAPSULATION, strip
from overlay.errors import PacketError
from tests import packets

# The figure of RFC 2003 section 3 in bytes: an outer header of protocol 4 from 192.0.2.1 to 192.0.2.2 (DF, TTL 64), and
# right behind it an echo request from 10.244.1.0 to 10.244.2.0.
OUTER = bytes.fromhex("45000030000040004004b6c6c0000201c0000202")
ECHO = bytes.fromhex("4500001c00010000400161f90af401000af402000800f7fe00010000")


def test_payload_of_the_outer_packet_is_the_inner_one():
    payload = OUTER[20:] + ECHO

    assert OUTER[9] == ENCAPSULATION.protocols[4] == 4
    assert int.from_bytes(OUTER[2:4], "big") == len(OUTER) + len(payload)
    assert packets.ones_complement_sum(OUTER) == packets.ones_complement_sum(ECHO[:20]) == 0xFFFF
    assert strip(payload) == (0, len(ECHO), None)
    assert ENCAPSULATION.clear.prefix(Ends(7)) == {4: b"", 6: b""}


def test_ipv6_is_protocol_41_and_no_port_is_used():
    assert ENCAPSULATION.protocols == {4: 4, 6: 41}
    assert not ENCAPSULATION.has_ports
    assert [ENCAPSULATION.overhead(version, Ends()) for version in (4, 6)] == [20, 40]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "inner_short"),
        (ECHO[:19], "inner_short"),
        (ECHO[:-1], "inner_length"),
        (b"\x60" + bytes(38), "inner_short"),
        (b"\x50" + bytes(40), "inner_version"),
    ],
)
def test_what_is_no_packet_is_refused_by_its_reason(payload, reason):
    with pytest.raises(PacketError) as raised:
        strip(payload)

    assert raised.value.reason == reason
