"""Which packet was lost, according to an ICMP error."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.returned import Returned
from tests import packets

A, B = "192.0.2.1", "198.51.100.9"
A6, B6 = "2001:db8::1", "2001:db8:9::9"
INNER = packets.udp(b"inside", source="10.0.0.1", destination="203.0.113.80")


def error(kind, code, quoted):
    return bytes([kind, code, 0, 0, 0, 0, 0, 0]) + quoted


def outer(version=4, payload=INNER):
    if version == 4:
        return packets.ipv4(payload, protocol=4, source=A, destination=B)
    return packets.ipv6(payload, protocol=4, source=A6, destination=B6)


@pytest.mark.parametrize(
    ("version", "kind", "code"), [(4, 3, 1), (4, 3, 2), (4, 3, 13), (4, 11, 0), (6, 1, 3), (6, 3, 0)]
)
def test_a_lost_packet_is_reported_with_its_destination(version, kind, code):
    found = Returned.parse(error(kind, code, outer(version)), version)

    assert found == Returned(ip_address(B if version == 4 else B6).packed, 4, INNER)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (4, error(3, 4, outer())),  # too big
        (6, error(2, 0, outer(6))),
        (4, error(0, 0, outer())),
        (6, error(129, 0, outer(6))),
        (4, error(3, 1, outer()[:19])),
        (6, error(1, 3, outer(6)[:39])),
        (4, error(3, 1, outer(6))),
        (6, error(1, 3, outer())),
        (4, error(3, 1, b"")),
        (4, error(3, 1, outer()[:6] + b"\x00\x10" + outer()[8:])),  # a later fragment
        (4, b"\x03\x01"),
    ],
)
def test_anything_else_says_nothing(version, message):
    assert Returned.parse(message, version) is None


@given(st.binary(max_size=80), st.sampled_from([4, 6]))
def test_garbage_raises_nothing(garbage, version):
    Returned.parse(garbage, version)
    Returned.parse(error(3 if version == 4 else 1, 1, garbage), version)
