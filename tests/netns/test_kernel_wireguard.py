"""The kernel's own WireGuard as a peer; skipped if the kernel has none."""

from __future__ import annotations

import json

import pytest

from overlay.forwarding.bulk.asking import HELLOS
from tests.netns.network import PATIENCE, PORT, Network, Node, ping, transfer_both_ways
from tests.netns.topology import wait_until

DEVICE = "wg0"
SHORT = {"rekey_after_time": 3.0, "rekey_timeout": 1.0}


@pytest.fixture
def site(lab, tmp_path):
    """Paris runs our agent with short sessions, Tokyo the kernel's WireGuard."""
    lab.require_module("wireguard")
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    tokyo = network._plug(Node(network, "tokyo", 2, DEVICE, {}))
    run = tokyo.namespace.run
    run("ip", "link", "add", DEVICE, "type", "wireguard")
    run("wg", "set", DEVICE, "private-key", str(tokyo.key_path), "listen-port", str(PORT),
        "peer", paris.public_key, "endpoint", f"{paris.outside}:{PORT}",
        "allowed-ips", ",".join(paris.settings["subnets"]))  # fmt: skip
    run("ip", "address", "add", f"{tokyo.address}/32", "dev", DEVICE)
    run("ip", "link", "set", DEVICE, "mtu", "1420", "up")
    run("ip", "route", "add", "10.244.1.0/24", "dev", DEVICE, "src", tokyo.address)
    network.start(timing=SHORT)
    yield network
    network.close()


def errors(node):
    """Return how many packets the kernel's WireGuard refused."""
    (device,) = json.loads(node.namespace.run("ip", "-j", "-s", "link", "show", DEVICE))
    return device["stats64"]["rx"]["errors"]


def test_the_kernel_s_wireguard_is_asked_for_units_in_one_session_alone(site):
    paris, tokyo = site.peers.values()
    ping(tokyo.namespace, paris.address, 3)
    transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 4 << 20)

    for number in range(2, 7):
        wait_until(
            lambda number=number: (
                paris.ping(tokyo.address) or paris.log.count("handshake completed") >= number
            ),
            PATIENCE,
            f"handshake {number}",
        )
        transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 1 << 20)

    assert errors(tokyo) <= HELLOS
