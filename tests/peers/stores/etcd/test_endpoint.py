from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from peers.stores.etcd.endpoint import find_address
from peers.stores.etcd.remarks import is_reachable
from peers.stores.membership import Member, OwnKeys

OVERLAY = [ip_network("10.244.0.0/16"), ip_network("fd00:244::/48")]


def member(address):
    return Member("paris", OwnKeys(bytes(32)), Path(), Path(), Path(), lambda _: address)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "fe80::1", "10.244.1.1", "fd00:244::1", "eth0", ""],
)
def test_others_cannot_reach_addresses_of_this_host_alone_or_of_the_overlay(text):
    assert not is_reachable(text, OVERLAY)


def test_a_host_is_reached_where_it_reaches_etcd_from():
    assert find_address("192.0.2.10", member("198.51.100.1"), OVERLAY) == "192.0.2.10"


@pytest.mark.parametrize("local", [None, "127.0.0.1", "10.244.1.1"])
def test_a_host_beside_its_etcd_is_reached_at_its_address_towards_others(local):
    assert find_address(local, member("198.51.100.1"), OVERLAY) == "198.51.100.1"
    assert find_address(local, member("10.244.1.1"), OVERLAY) is None
    assert find_address(local, member(None), OVERLAY) is None
