from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.services.errors import about, is_error
from overlay.forwarding.services.headers import upper_of
from tests import packets

VIP = {4: "192.0.2.100", 6: "2001:db8::100"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8:1::7"}
ROUTER = {4: "203.0.113.1", 6: "2001:db8:2::1"}
TOO_BIG = {4: bytes([3, 4, 0, 0, 0, 0, 5, 20]), 6: bytes([2, 0, 0, 0, 0, 0, 5, 20])}
both = pytest.mark.parametrize("version", [4, 6])


def sent(version, protocol=packets.tcp, **more):
    """Return what a server sent to the client on behalf of the virtual address."""
    return protocol(
        b"data", version=version, ports=(80, 5000), source=VIP[version], destination=CLIENT[version], **more
    )


def error(version, quoted, head=None):
    build, protocol = (packets.ipv4, 1) if version == 4 else (packets.ipv6, 58)
    head = TOO_BIG[version] if head is None else head
    return build(head + quoted, source=ROUTER[version], destination=VIP[version], protocol=protocol)


def found(packet):
    return about(memoryview(packet), upper_of(packet))


def key(version):
    addresses = ip_address(CLIENT[version]).packed + ip_address(VIP[version]).packed
    return addresses + (5000).to_bytes(2, "big") + (80).to_bytes(2, "big")


@both
@pytest.mark.parametrize("protocol", [packets.tcp, packets.udp])
def test_an_error_is_about_the_flow_as_the_client_s_packets_have_it(version, protocol):
    packet = error(version, sent(version, protocol))

    assert found(packet) == (6 if protocol is packets.tcp else 17, key(version))


@both
def test_eight_bytes_of_the_segment_are_enough(version):
    header = 20 if version == 4 else 40

    assert found(error(version, sent(version)[: header + 8])).key == key(version)
    assert found(error(version, sent(version)[: header + 4])).key == key(version)
    assert found(error(version, sent(version)[: header + 3])) is None


def test_options_and_extensions_of_the_packet_are_passed_over():
    assert found(error(4, sent(4, options=bytes([1, 1, 1, 0])))).key == key(4)
    assert found(error(6, packets.with_options(sent(6)))).key == key(6)


@both
def test_an_error_about_a_packet_of_somebody_else_is_about_no_flow(version):
    stranger = packets.tcp(version=version, source=ROUTER[version], destination=CLIENT[version])

    assert found(error(version, stranger)) is None


def test_an_error_about_a_later_fragment_is_about_no_flow():
    assert found(error(4, sent(4, fragment=0x2003))) is None


def test_an_error_about_the_other_version_is_about_no_flow():
    assert found(error(4, sent(6))) is None


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        (4, 3, True),
        (4, 11, True),
        (4, 12, True),
        (4, 5, False),
        (4, 8, False),
        (4, 0, False),
        (6, 1, True),
        (6, 2, True),
        (6, 4, True),
        (6, 128, False),
        (6, 137, False),
    ],
)
def test_errors_are_told_from_other_messages(version, kind, expected):
    packet = error(version, b"", bytes([kind]) + bytes(7))

    assert is_error(packet, upper_of(packet)) is expected


@both
@given(st.binary(max_size=80))
def test_garbage_is_about_no_flow_or_some(version, garbage):
    found(error(version, garbage))
    found(error(version, b"", garbage + b"\0"))
