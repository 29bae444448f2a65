from __future__ import annotations

import pytest

from overlay.encap.encapsulation import Ends
from overlay.encap.udp import ENCAPSULATION, strip
from overlay.errors import PacketError

# An echo request from 10.244.2.0 to 10.244.1.0, as flannel's udp backend sends it in a datagram: nothing before it.
ECHO = bytes.fromhex("4500001c00010000400165020af402000af401000800f7fe00010000")


def test_payload_is_the_packet_from_its_first_byte_on():
    assert strip(ECHO) == (0, len(ECHO), None)
    assert ENCAPSULATION.clear.prefix(Ends()) == {4: b"", 6: b""}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "inner_short"),
        (ECHO[:19], "inner_short"),
        (ECHO[:-1], "inner_length"),
        (b"\x60" + bytes(38), "inner_short"),
        (b"\x04\x00\x00\x00" + bytes(40), "inner_version"),
        (b"\x10" + ECHO, "inner_version"),
    ],
)
def test_what_is_no_packet_is_refused_by_its_reason(payload, reason):
    with pytest.raises(PacketError) as raised:
        strip(payload)

    assert raised.value.reason == reason
