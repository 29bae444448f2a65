"""Which peer a captured packet belongs to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.capturing.whose import ETHERNET_SIZE, PeerRow, ServiceRow, Whose, read_row
from tests.overlay.capturing.datagrams import udp

ROWS = [
    PeerRow(1, "tokyo", ("10.244.2.0/24", "fd00:244:2::/64"), ("192.0.2.2", 51820)),
    PeerRow(2, "lima", ("10.244.0.0/16", "10.244.2.9/32"), ("2001:db8::2", 4500)),
    PeerRow(3, "nowhere", ()),
]


@pytest.fixture
def whose():
    made = Whose()
    made.take(ROWS)
    return made


def packet(source, destination):
    return udp(source, destination, 1, 2, b"x")


@pytest.mark.parametrize(
    ("source", "destination", "sent", "received"),
    [
        ("10.244.1.2", "10.244.2.7", "tokyo", "lima"),
        ("10.244.2.9", "10.244.2.10", "tokyo", "lima"),
        ("203.0.113.1", "203.0.113.2", "", ""),
        ("fd00:244:2::1", "fd00:244:9::1", "", "tokyo"),
    ],
)
def test_longest_prefix_that_holds_the_far_end_decides(whose, source, destination, sent, received):
    made = packet(source, destination)

    assert whose.of_packet(made, is_sent=True) == sent
    assert whose.of_packet(made, is_sent=False) == received


def test_frames_are_looked_at_behind_their_header_and_arp_by_the_address_that_it_is_about(whose):
    frame = bytes(12) + b"\x08\x00" + packet("10.244.1.2", "10.244.2.7")
    arp = bytes(12) + b"\x08\x06" + bytes(14) + ip_address("10.244.2.7").packed + bytes(6) + bytes(4)

    assert whose.of_packet(frame, is_sent=True, at=ETHERNET_SIZE) == "tokyo"
    assert whose.of_packet(arp, is_sent=False, at=ETHERNET_SIZE) == "tokyo"


def test_datagrams_are_of_the_peer_at_that_endpoint_or_else_at_that_address(whose):
    assert whose.outside(ip_address("192.0.2.2").packed, 51820) == "tokyo"
    assert whose.outside(ip_address("192.0.2.2").packed, 9) == "tokyo"
    assert whose.outside(ip_address("2001:db8::2").packed, 0) == "lima"
    assert whose.outside(ip_address("192.0.2.9").packed, 51820) == ""


@given(st.binary(max_size=80), st.booleans(), st.sampled_from([0, ETHERNET_SIZE]))
def test_any_bytes_are_somebodys_or_nobodys(data, is_sent, at):
    made = Whose()
    made.take(ROWS)

    assert made.of_packet(data, is_sent=is_sent, at=at) in {"", "tokyo", "lima"}


@pytest.mark.parametrize(
    "values", [None, 7, [], {}, {"number": 1, "name": "x", "prefixes": [], "endpoint": []}]
)
def test_row_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match="not a row"):
        PeerRow.read(values)


def test_packet_for_a_virtual_address_or_from_one_is_of_its_service(whose):
    whose.take([ServiceRow("shop", ("10.99.0.1", "fd00:99::1"))])

    assert whose.service_of(packet("10.244.1.2", "10.99.0.1")) == "shop"
    assert whose.service_of(packet("10.99.0.1", "10.244.1.2")) == "shop"
    assert whose.service_of(packet("fd00:244:2::1", "fd00:99::1")) == "shop"
    assert whose.service_of(packet("10.244.1.2", "10.244.2.7")) == ""
    assert whose.service_of(bytes(14) + packet("10.244.1.2", "10.99.0.1"), ETHERNET_SIZE) == "shop"
    assert whose.service_of(b"") == whose.service_of(b"\x45") == ""


def test_new_table_takes_the_place_of_the_old_one(whose):
    names = whose.names
    assert whose.at(ip_address("10.244.2.7").packed) == "tokyo"

    whose.replace(
        [PeerRow(4, "osaka", ("10.244.2.0/24",), ("192.0.2.2", 51820)), ServiceRow("shop", ("10.99.0.1",))]
    )

    assert whose.at(ip_address("10.244.2.7").packed) == "osaka"
    assert whose.at(ip_address("10.244.9.7").packed) == ""
    assert whose.outside(ip_address("192.0.2.2").packed, 51820) == "osaka"
    assert whose.service_of(packet("10.244.1.2", "10.99.0.1")) == "shop"
    assert names == {4: "osaka"}


def test_table_that_is_none_changes_nothing(whose):
    with pytest.raises(ValueError, match="does not appear to be"):
        whose.replace([PeerRow(4, "osaka", ("10.244.2.0/240",))])

    assert whose.at(ip_address("10.244.2.7").packed) == "tokyo"


def test_rows_are_told_apart_by_what_they_are_about():
    assert read_row({"service": "shop", "addresses": ["10.99.0.1"]}) == ServiceRow("shop", ("10.99.0.1",))
    assert read_row({"number": 1, "name": "x", "prefixes": [], "endpoint": None}) == PeerRow(1, "x", ())
    for each in ({"service": "shop"}, {"service": "shop", "addresses": 7}, None, 7):
        with pytest.raises(ValueError, match="not a row about a"):
            read_row(each)
