"""Values of a network's keys: they are read as they were written, and anything else is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.addresses import parse_prefix
from peers.encapsulation import ENCAPSULATIONS
from peers.errors import StoreError
from peers.stores.etcd.layout import (
    Keys,
    MalformedError,
    NodeValue,
    Reservation,
    check_network,
    format_key,
    format_subnet,
    parse_key,
    parse_subnet,
)
from tests.peers.examples import key

KEYS = Keys("office")
PARIS = NodeValue("paris", key("paris"), (parse_prefix("10.244.7.0/24"),), "0" * 32, ("192.0.2.1",))

PREFIXES = st.ip_addresses(v=4).map(lambda a: parse_prefix(f"{a}/32")) | st.ip_addresses(v=6).map(
    lambda a: parse_prefix(f"{a}/128")
)
NODES = st.builds(
    NodeValue,
    st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True),
    st.binary(min_size=32, max_size=32).filter(any),
    st.lists(PREFIXES, min_size=1, max_size=8, unique=True).map(tuple),
    st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    st.lists(st.sampled_from(["192.0.2.1", "[2001:db8::1]:4500", "vpn.example.net:51820"]), max_size=8).map(
        tuple
    ),
    st.sampled_from([None, *ENCAPSULATIONS]),
)


@given(NODES)
def test_node_is_read_as_it_was_written(node):
    assert NodeValue.parse(format_subnet(node.subnets[0]), node.build()) == node


@given(st.text(max_size=40), st.binary(max_size=200) | st.dictionaries(st.sampled_from(
    ["name", "public_key", "subnets", "endpoints", "instance", "encapsulation"]),
    st.none() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=20) | st.integers()),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_value_is_read_or_refused(name, value):
    for parse in (NodeValue.parse, Reservation.parse):
        with contextlib.suppress(MalformedError):
            parse(name, value)
    with contextlib.suppress(MalformedError):
        parse_key(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a b"}, "name is not that of a peer"),
        ({"name": 7}, "name is missing, or not a text"),
        ({"public_key": "x"}, "public_key is none"),
        ({"subnets": ["10.244.8.0/24"]}, "first subnet is not that of its key"),
        ({"subnets": []}, "first subnet is not that of its key"),
        ({"subnets": ["10.244.7.0/24"] * 2}, "in it twice"),
        ({"subnets": ["10.244.7.0/24", "x"]}, "a subnet of it is none"),
        ({"subnets": ["10.244.7.0/24"] * 9}, "at most 8 texts"),
        ({"endpoints": ["0.0.0.0"]}, "an endpoint of it is none"),
        ({"endpoints": ['192.0.2.1"\n[network]']}, "an endpoint of it is none"),
        ({"endpoints": "192.0.2.1"}, "endpoints are not at most 8 texts"),
        ({"encapsulation": "tls"}, "encapsulation is not known"),
        ({"encapsulation": []}, "encapsulation is not known"),
        ({"instance": "0" * 31}, "32 hexadecimal digits"),
        ({"name": "x" * 5000}, "more than 4096 bytes"),
    ],
)
def test_node_that_says_what_none_can_is_refused(change, said):
    value = json.dumps(json.loads(PARIS.build()) | change).encode()

    with pytest.raises(MalformedError, match=said):
        NodeValue.parse("10.244.7.0-24", value)


def test_member_that_a_later_release_adds_is_passed_over():
    value = json.dumps(json.loads(PARIS.build()) | {"colour": "red"}).encode()

    assert NodeValue.parse("10.244.7.0-24", value) == PARIS


@pytest.mark.parametrize(
    ("subnet", "text"),
    [("10.244.7.0/24", "10.244.7.0-24"), ("fd00:244:7::/64", "fd00-244-7---64"), ("::/0", "---0")],
)
def test_subnet_is_a_part_of_a_key_as_flannel_writes_it(subnet, text):
    assert format_subnet(parse_prefix(subnet)) == text
    assert parse_subnet(text) == parse_prefix(subnet)


@pytest.mark.parametrize("reservation", [
    Reservation(parse_prefix("10.244.7.0/24"), "paris"), Reservation(parse_prefix("fd00::/64"), None, key("paris"))
])  # fmt: skip
def test_reservation_is_read_as_it_was_written(reservation):
    assert Reservation.parse(format_subnet(reservation.subnet), reservation.build()) == reservation


def test_keys_stand_below_the_network():
    assert KEYS.node(PARIS.subnets[0]) == b"/overlay/office/nodes/10.244.7.0-24"
    assert KEYS.split(KEYS.node(PARIS.subnets[0])) == ("nodes", "10.244.7.0-24")
    assert KEYS.split(KEYS.config) == ("", "config")
    assert KEYS.split(b"\xff") == ("", "")
    assert parse_key(format_key(key("paris"))) == key("paris")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 64, ".x"])
def test_name_that_no_network_can_have_is_refused(name):
    with pytest.raises(StoreError, match=r"names (no network|the network)"):
        check_network(name, "etcd://h/" + name)
