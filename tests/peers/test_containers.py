from __future__ import annotations

from ipaddress import ip_network

import pytest

from peers.containers import default_networks
from peers.hints import warnings
from tests.peers.examples import peer, table


@pytest.mark.parametrize(
    ("subnet", "tool"),
    [
        ("172.17.2.0/24", "Docker gives docker0"),
        ("172.17.0.0/16", "Docker gives docker0"),
        ("10.88.7.0/24", "podman gives podman0"),
    ],
)
def test_subnet_that_container_tools_take_by_default_is_warned_of(subnet, tool):
    made = table(peer("paris", "10.244.1.0/24"), peer("tokyo", subnet, address=("10.244.2.1",)))

    (sentence,) = default_networks(made)

    assert f"{subnet}, a subnet of peers.tokyo, is in the network that {tool}" in sentence
    assert sentence in warnings(made)


def test_prefix_of_the_network_is_warned_of_once():
    peers = [
        peer(name, f"172.17.{number}.0/24", address=(f"172.17.{number}.1",))
        for number, name in enumerate("abc")
    ]
    made = table(*peers, prefixes=(ip_network("172.17.0.0/16"),))

    (sentence,) = default_networks(made)

    assert sentence.startswith("172.17.0.0/16, network.prefix, is in the network")


@pytest.mark.parametrize(
    "subnet", ["10.244.2.0/24", "172.16.0.0/12", "0.0.0.0/0", "10.0.0.0/8", "fd00:244:2::/64"]
)
def test_other_networks_and_larger_ones_are_not(subnet):
    made = table(peer("paris", "10.244.1.0/24"), peer("tokyo", subnet, address=("10.244.2.1",)))

    assert default_networks(made) == []
