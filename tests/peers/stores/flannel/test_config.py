from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.errors import TableError
from peers.stores.flannel.config import Config, read_config

PATH = Path("/coreos.com/network/config")


def read(**found):
    return read_config(json.dumps({"Network": "10.244.0.0/16", **found}).encode(), PATH)


def test_a_network_alone_is_that_of_the_udp_backend_with_subnets_of_24_bits():
    assert read() == Config(
        IPv4Network("10.244.0.0/16"), 24, IPv4Address("10.244.1.0"), IPv4Address("10.244.255.0"), "udp", 8285
    )


# flannel-io/flannel Documentation/configuration.md
def test_flannels_own_example_is_read():
    config = read_config(
        b'{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", '
        b'"Backend": {"Type": "udp", "Port": 7890}}',
        PATH,
    )

    assert (config.length, config.port) == (20, 7890)
    subnets = list(config.subnets())
    assert (str(subnets[0]), str(subnets[-1])) == ("10.10.0.0/20", "10.99.0.0/20")


def test_the_last_subnet_may_end_where_all_addresses_end():
    assert read(Network="0.0.0.0/0").last == IPv4Address("255.255.255.0")


@pytest.mark.parametrize(
    ("network", "length"), [("10.1.0.0/22", 24), ("10.1.0.0/23", 25), ("10.1.0.0/28", 30)]
)
def test_a_small_network_is_cut_into_four(network, length):
    assert read(Network=network).length == length


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ({"Type": "vxlan"}, ("vxlan", 8472, 1, None, 0)),
        ({"Type": "vxlan", "VNI": 0, "Port": 4789, "MTU": 1500, "GBP": True}, ("vxlan", 4789, 0, 1420, 0)),
        ({"Type": "vxlan", "vni": 7, "DirectRouting": False}, ("vxlan", 8472, 7, None, 0)),
        ({"Type": "ipip"}, ("ipip", None, 1, None, 0)),
        ({"Type": "udp"}, ("udp", 8285, 1, None, 0)),
        ({"Type": "wireguard"}, ("wireguard", 51820, 1, None, 0)),
        (
            {
                "Type": "wireguard",
                "ListenPort": 51999,
                "PersistentKeepaliveInterval": 25,
                "Mode": "ipv4",
                "PSK": "",
            },
            ("wireguard", 51999, 1, None, 25),
        ),
    ],
)
def test_each_backend_is_read_with_its_options(backend, expected):
    config = read(Backend=backend)

    assert (config.backend, config.port, config.vni, config.mtu, config.keepalive) == expected


WRONG = [
    ({"Network": None}, "Network is missing; write one"),
    ({"Network": "10.244.0.0"}, "Network is not an IPv4 prefix"),
    ({"Network": "fd00::/48"}, "Network is not an IPv4 prefix"),
    ({"Network": "10.244.0.0/29"}, "has no room for four subnets; write a wider one"),
    ({"SubnetLen": 31}, "SubnetLen is not a number from 0 to 30; correct it"),
    ({"SubnetLen": "24"}, "SubnetLen is not a number"),
    ({"SubnetLen": 17}, "SubnetLen 17 leaves no room for four subnets in 10.244.0.0/16; write at least 18"),
    ({"SubnetMin": "10.245.0.0"}, "SubnetMin 10.245.0.0 is not in Network 10.244.0.0/16; write"),
    (
        {"SubnetMax": "10.244.7.1"},
        "SubnetMax 10.244.7.1 is not where a subnet of length 24 begins; correct it",
    ),
    ({"SubnetMin": 5}, "SubnetMin is not an IPv4 address; write"),
    (
        {"SubnetMin": "10.244.9.0", "SubnetMax": "10.244.8.0"},
        "SubnetMin 10.244.9.0 is behind SubnetMax 10.244.8.0",
    ),
    ({"EnableIPv6": True}, "agents take part by IPv4 alone: write EnableIPv6 as false"),
    ({"EnableIPv4": False}, "agents take part by IPv4 alone"),
    ({"EnableIPv6": "no"}, "EnableIPv6 is neither true nor false; write"),
    ({"Backend": "udp"}, "Backend is not an object; write"),
    (
        {"Backend": {}},
        "Backend.Type is missing, and agents take part in udp, vxlan, ipip and wireguard; write",
    ),
    (
        {"Backend": {"Type": "host-gw"}},
        "Backend.Type is 'host-gw', and agents take part in udp, vxlan, ipip and",
    ),
    (
        {"Backend": {"Type": "vxlan", "DirectRouting": True}},
        "Backend.DirectRouting is true, and agents take nothing",
    ),
    ({"Backend": {"Type": "ipip", "directRouting": True}}, "Backend.DirectRouting is true"),
    (
        {"Backend": {"Type": "wireguard", "PSK": "secret"}},
        "Backend.PSK is there, and agents take no preshared key",
    ),
    (
        {"Backend": {"Type": "wireguard", "Mode": "ipv6"}},
        "Backend.Mode is 'ipv6'; write one of separate, auto, ipv4",
    ),
    ({"Backend": {"Type": "udp", "Port": 65536}}, "Backend.Port is not a number from 0 to 65535; correct it"),
    (
        {"Backend": {"Type": "vxlan", "VNI": 2**24}},
        "Backend.VNI is not a number from 0 to 16777215; correct it",
    ),
    ({"Backend": {"Type": "vxlan", "MTU": 100}}, "Backend.MTU 100 is too small; write that of the underlay"),
]


@pytest.mark.parametrize(("found", "sentence"), WRONG)
def test_a_config_that_agents_cannot_follow_is_refused_with_a_remedy(found, sentence):
    with pytest.raises(TableError) as refused:
        read(**found)

    assert str(refused.value).startswith("/coreos.com/network/config: ")
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"\xff", b"[" * 10000, b" " * 70000])
def test_what_is_no_json_object_is_refused(value):
    with pytest.raises(TableError, match=r"it (is not JSON|is not a JSON object|has more than)"):
        read_config(value, PATH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("10.244.0.0/16"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["Network", "SubnetLen", "SubnetMin", "SubnetMax", "Backend", "EnableIPv4", "EnableIPv6"]
OPTIONS = [
    "Type",
    "Port",
    "VNI",
    "MTU",
    "ListenPort",
    "Mode",
    "PSK",
    "PersistentKeepaliveInterval",
    "DirectRouting",
]
BACKEND = st.dictionaries(
    st.sampled_from(OPTIONS), JSON | st.sampled_from(["udp", "vxlan", "ipip", "wireguard"]), max_size=4
)


@given(
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5),
    BACKEND,
    st.sampled_from(["10.244.0.0/16", "10.1.2.3/8", "10.0.0.0/28"]),
)
def test_any_json_is_a_config_or_refused(found, backend, network):
    try:
        config = read_config(json.dumps({"Network": network, **found, "Backend": backend}).encode(), PATH)
    except TableError:
        return

    assert next(config.subnets()).subnet_of(config.network)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_config_or_refused(value):
    with pytest.raises(TableError):
        read_config(value, PATH)
