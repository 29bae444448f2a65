"""VRRP advertisements: keepalived's are read and written byte for byte, and anything else is refused with a reason."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import PacketError
from overlay.wire.vrrp import GROUP_IPV4, GROUP_IPV6, Advertisement
from tests.refusals import refused


def packed(text):
    return ip_address(text).packed


MASTER, VIP = packed("10.50.2.1"), packed("10.50.2.200")
LINK_LOCAL, VIP6 = packed("fe80::5200"), packed("fd50:2::200")

# Seen on the wire from keepalived 2.2.7
VERSION_2 = bytes.fromhex("21339601 0001 3bd0 0a3202c8") + bytes(8)
VERSION_3 = bytes.fromhex("31339601 0064 3eaa 0a3202c8")


def test_version_2_is_that_of_keepalived():
    told = Advertisement(2, 51, 150, 1.0, (VIP,))

    assert told.build(MASTER, GROUP_IPV4) == VERSION_2
    assert Advertisement.parse(VERSION_2, MASTER, GROUP_IPV4) == told


def test_version_3_is_that_of_keepalived():
    read = Advertisement.parse(_with_checksum(VERSION_3), MASTER, GROUP_IPV4)

    assert read == Advertisement(3, 51, 150, 1.0, (VIP,))
    assert read.build(MASTER, GROUP_IPV4)[:6] == VERSION_3[:6]


def _with_checksum(message, source=MASTER, group=GROUP_IPV4):
    """Return *message* as it is from *source*: the pseudo header holds it."""
    whole = source + group + len(message).to_bytes(4, "big") + bytes((0, 0, 0, 112))
    whole += message[:6] + bytes(2) + message[8:]
    total = sum(int.from_bytes(whole[at : at + 2], "big") for at in range(0, len(whole), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:6] + (total ^ 0xFFFF).to_bytes(2, "big") + message[8:]


def test_ipv6_has_the_link_local_address_first_and_version_3_alone():
    told = Advertisement(3, 52, 150, 1.0, (LINK_LOCAL, VIP6))
    message = told.build(LINK_LOCAL, GROUP_IPV6)

    assert message[:6] == bytes.fromhex("31349602 0064")
    assert message[8:] == LINK_LOCAL + VIP6
    assert message == _with_checksum(message, LINK_LOCAL, GROUP_IPV6)
    assert Advertisement.parse(message, LINK_LOCAL, GROUP_IPV6) == told
    with refused("vrrp_version"):
        Advertisement.parse(b"\x21" + message[1:] + bytes(8), LINK_LOCAL, GROUP_IPV6)


def test_password_of_version_2_is_padded_with_zeros():
    told = Advertisement(2, 51, 100, 3.0, (VIP, MASTER), b"secret")
    message = told.build(MASTER, GROUP_IPV4)

    assert message[4:6] == bytes((1, 3))
    assert message[-8:] == b"secret\0\0"
    assert Advertisement.parse(message, MASTER, GROUP_IPV4) == told


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "vrrp_form"),
        (VERSION_2[:7], "vrrp_form"),
        (VERSION_2[:-1], "vrrp_form"),  # its authentication is truncated
        (VERSION_3[:11], "vrrp_form"),  # and its address
        (b"\x32" + VERSION_3[1:], "vrrp_form"),  # of another type
        (b"\x41" + VERSION_3[1:], "vrrp_version"),
        (b"\x11" + VERSION_3[1:], "vrrp_version"),
        (VERSION_3[:1] + b"\0" + VERSION_3[2:], "vrrp_form"),  # group 0
        (_with_checksum(VERSION_3)[:-1] + b"\xc9", "vrrp_checksum"),
        (VERSION_2[:-1] + b"\1", "vrrp_checksum"),
        (_with_checksum(VERSION_3[:4] + bytes(2) + VERSION_3[6:]), "vrrp_form"),  # it never advertises
        (bytes.fromhex("21339601 0201 39d0 0a3202c8") + bytes(8), "vrrp_form"),  # authentication by IPsec
    ],
)
def test_what_is_not_an_advertisement_is_refused(message, reason):
    with refused(reason):
        Advertisement.parse(message, MASTER, GROUP_IPV4)


def test_advertisement_of_another_sender_than_the_packet_says_is_refused():
    message = Advertisement(3, 51, 150, 1.0, (VIP,)).build(MASTER, GROUP_IPV4)
    with refused("vrrp_checksum"):
        Advertisement.parse(message, packed("10.50.2.2"), GROUP_IPV4)


@given(
    version=st.sampled_from((2, 3)),
    router=st.integers(1, 255),
    priority=st.integers(0, 255),
    hundredths=st.integers(1, 4095),
    addresses=st.lists(st.binary(min_size=4, max_size=4), max_size=255),
    password=st.binary(max_size=8).filter(lambda each: not each.endswith(b"\0")),
)
def test_what_is_built_is_read_back(version, router, priority, hundredths, addresses, password):
    interval = hundredths / 100 if version == 3 else float(1 + hundredths % 255)
    told = Advertisement(
        version, router, priority, interval, tuple(addresses), password if version == 2 else b""
    )

    assert Advertisement.parse(told.build(MASTER, GROUP_IPV4), MASTER, GROUP_IPV4) == told


@given(message=st.binary(max_size=64), size=st.sampled_from((4, 16)))
def test_any_bytes_are_read_or_refused_by_name(message, size):
    try:
        read = Advertisement.parse(message, bytes(size), bytes(size))
    except PacketError:
        return  # whose reason is in the registry
    assert read.interval > 0
    assert 1 <= read.router <= 255
