"""Echo requests and the answers to them, as packets of a tunnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.wire.ip import checksum, pseudo_header_sum
from overlay.wireguard import echo_reply, echo_request

# Field by field as in RFC 791 and RFC 792, RFC 8200 and RFC 4443
V4 = bytes.fromhex("4500002000000000400166db0a0000010a0000020800332f0007000361626364")
V6 = bytes.fromhex(
    "60000000000c3a40fd000000000000000000000000000001fd0000000000000000000000000000028000c0e30007000361626364"
)


@pytest.mark.parametrize(("ends", "packet"), [(("10.0.0.1", "10.0.0.2"), V4), (("fd00::1", "fd00::2"), V6)])
def test_request_is_the_packet_that_ping_sends(ends, packet):
    assert echo_request(*ends, b"abcd", identifier=7, sequence=3) == packet


@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_reply_goes_back_with_the_same_data(ends):
    request = echo_request(*ends, b"odd", identifier=7, sequence=3)
    at = 20 if request[0] >> 4 == 4 else 40
    kind = 0 if at == 20 else 129

    reply = echo_reply(request + bytes(9))  # with padding

    back = echo_request(*reversed(ends), b"odd", identifier=7, sequence=3)
    assert reply[:at] == back[:at]
    assert reply[at] == kind
    assert reply[at + 4 :] == back[at + 4 :]
    start = 0 if at == 20 else pseudo_header_sum(reply[8:24], reply[24:40], 58, len(reply) - at)
    assert checksum(reply[at:], start) == 0
    assert echo_reply(reply) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        V4[:27],
        V4[:6] + b"\x20\x00" + V4[8:],  # more fragments
        V4[:6] + b"\x00\x01" + V4[8:],  # a later one
        V4[:9] + b"\x11" + V4[10:],
        b"\x46" + V4[1:],
        V6[:6] + b"\x11" + V6[7:],
        echo_request("10.0.0.1", "224.0.0.1"),
        echo_request("10.0.0.1", "255.255.255.255"),
        echo_request("fd00::1", "ff02::1"),
        echo_request("224.0.0.1", "10.0.0.1"),  # nobody can have asked
        echo_request("::", "fd00::1"),
    ],
)
def test_anything_else_has_no_answer(packet):
    assert echo_reply(packet) is None


@given(st.binary(max_size=80))
def test_garbage_raises_nothing(packet):
    echo_reply(packet)


def test_addresses_of_two_versions_are_refused():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1 and fd00::2 do not have the same IP version"):
        echo_request("10.0.0.1", "fd00::2")


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ({"identifier": 65536}, "65536 and 0 are not both"),
        ({"sequence": -1}, "0 and -1 are not both"),
        ({"data": bytes(65_488)}, "65488 bytes are more than the 65487"),
    ],
)
def test_what_a_packet_has_no_room_for_is_refused(given, finding):
    with pytest.raises(ValueError, match=finding):
        echo_request("fd00::1", "fd00::2", **given)


def test_largest_request_is_one():
    assert len(echo_request("fd00::1", "fd00::2", bytes(65_487))) == 65_535
