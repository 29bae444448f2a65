"""Calls of dockerd, as version 20.10 sends them, and refusals of other ones."""

from __future__ import annotations

import contextlib
import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.docker.calls import (
    CallError,
    NewAddress,
    NewEndpoint,
    NewNetwork,
    NewPool,
    Published,
    parse_published,
    pool_id,
    pool_of,
)

# Recorded
CREATE_NETWORK = json.loads(
    '{"NetworkID":"16f9","Options":{"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{}},'
    '"IPv4Data":[{"AddressSpace":"ovl-local","Gateway":"10.96.7.1/24","Pool":"10.96.7.0/24"}],"IPv6Data":[]}'
)
CREATE_ENDPOINT = json.loads(
    '{"NetworkID":"16f9","EndpointID":"00bb","Interface":{"Address":"10.96.7.5/24","AddressIPv6":"","MacAddress":""},'
    '"Options":{"com.docker.network.endpoint.exposedports":[],"com.docker.network.portmap":[]}}'
)
REQUEST_POOL = json.loads(
    '{"AddressSpace":"ovl-local","Pool":"10.96.7.0/24","SubPool":"","Options":{},"V6":false}'
)


def ports(**fields):
    entry = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080, **fields}
    return {"Options": {"com.docker.network.portmap": [entry]}}


def test_network_is_read():
    assert NewNetwork.parse(CREATE_NETWORK) == NewNetwork("16f9", (ip_network("10.96.7.0/24"),))


def test_network_has_its_options():
    options = {
        "com.docker.network.internal": True,
        "com.docker.network.generic": {"com.docker.network.driver.mtu": "1300"},
    }

    made = NewNetwork.parse({**CREATE_NETWORK, "Options": options})

    assert (made.mtu, made.is_internal) == (1300, True)


def test_endpoint_has_its_addresses_and_what_ethernet_address_was_asked_for():
    interface = {"Address": "10.96.7.5/24", "AddressIPv6": "fd00::5/64", "MacAddress": "02:42:0a:60:07:05"}

    assert NewEndpoint.parse(CREATE_ENDPOINT) == NewEndpoint("16f9", "00bb", (ip_address("10.96.7.5"),), None)
    assert NewEndpoint.parse({**CREATE_ENDPOINT, "Interface": interface}) == NewEndpoint(
        "16f9", "00bb", (ip_address("10.96.7.5"), ip_address("fd00::5")), "02:42:0a:60:07:05"
    )


def test_pool_is_one_that_is_named_or_of_our_choice():
    assert NewPool.parse(REQUEST_POOL) == NewPool(ip_network("10.96.7.0/24"), 4)
    assert NewPool.parse({**REQUEST_POOL, "Pool": "", "V6": True}) == NewPool(None, 6)


def test_address_is_of_a_pool_that_its_id_names():
    text = pool_id("ovl-local", ip_network("fd00::/64"))
    gateway = {"RequestAddressType": "com.docker.network.gateway"}

    assert pool_of(text) == ip_network("fd00::/64")
    assert NewAddress.parse({"PoolID": text, "Address": "", "Options": gateway}).is_gateway
    assert NewAddress.parse({"PoolID": text, "Address": "fd00::9", "Options": None}) == NewAddress(
        ip_network("fd00::/64"), ip_address("fd00::9"), is_gateway=False
    )


def test_published_ports_are_those_of_every_address_or_of_one():
    assert parse_published(ports()) == (Published("tcp", 8080, 80),)
    assert parse_published(ports(HostIP="0.0.0.0", Proto=17)) == (Published("udp", 8080, 80),)
    assert parse_published(ports(HostIP="192.0.2.1")) == (Published("tcp", 8080, 80, "192.0.2.1"),)
    assert parse_published({"Options": None}) == ()


@pytest.mark.parametrize(
    ("read", "body", "said"),
    [
        (NewNetwork.parse, {**CREATE_NETWORK, "NetworkID": "../x"}, "NetworkID is '../x', which is not an id"),
        (NewNetwork.parse, {**CREATE_NETWORK, "Options": {"com.docker.network.generic": {"mtu": "1"}}}, "the option mtu"),
        (NewNetwork.parse, {**CREATE_NETWORK, "Options": {"com.docker.network.generic": {"com.docker.network.driver.mtu": "-1"}}},
         "write 576 to 65535"),
        (NewNetwork.parse, {**CREATE_NETWORK, "IPv4Data": [{"Pool": "10.0.0.1/8"}]}, "IPv4Data.Pool is '10.0.0.1/8'"),
        (NewEndpoint.parse, {**CREATE_ENDPOINT, "Interface": {"Address": "x"}}, "x is not an address"),
        (NewPool.parse, {**REQUEST_POOL, "SubPool": "10.96.7.128/25"}, "--ip-range is not supported"),
        (NewPool.parse, {**REQUEST_POOL, "Pool": "10.96.7/24"}, "--subnet is '10.96.7/24'"),
        (NewAddress.parse, {"PoolID": "10.0.0.0", "Address": ""}, "PoolID is ''"),
        (parse_published, ports(HostPort=0, HostPortEnd=0), "as in -p 8080:80"),
        (parse_published, ports(HostPortEnd=8090), "the ports 8080 to 8090 of the host"),
        (parse_published, ports(Proto=1), "IP protocol 1 has no ports"),
        (parse_published, ports(Port="80"), "Port is not a number"),
        (parse_published, ports(HostIP="all"), "all is not an address"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_a_sentence(read, body, said):
    with pytest.raises(CallError) as caught:
        read(body)

    assert said in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ("NetworkID", "EndpointID", "Options", "IPv4Data", "IPv6Data", "Interface", "Pool", "PoolID", "SubPool", "Address", "V6",
     "Proto", "Port", "com.docker.network.portmap", "com.docker.network.generic", "com.docker.network.driver.mtu")
)  # fmt: skip


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON | st.lists(st.dictionaries(KEYS, JSON)))))
def test_any_body_is_read_or_refused(body):
    for read in (NewNetwork.parse, NewEndpoint.parse, NewPool.parse, NewAddress.parse, parse_published):
        with contextlib.suppress(CallError):
            read(body)
