"""The kernel's FOU as the far end of the encapsulation ``udp``; skipped if the kernel has no FOU."""

from __future__ import annotations

import pytest

from tests.netns.network import Network, Node, ping, transfer_both_ways

PORT = 8285


@pytest.fixture
def fou(lab, tmp_path):
    """Paris runs our agent; Tokyo's kernel receives bare IPv4 packets from UDP, and sends them through an ipip tunnel
    over FOU.
    """
    lab.require_module("fou")
    lab.require_module("ipip")
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    tokyo = network._plug(Node(network, "tokyo", 2, "fou0", {}))
    tokyo.settings |= {"public_key": None, "encapsulation": "udp", "subnets": ["10.244.2.0/24"]}
    run = tokyo.namespace.run
    run("ip", "fou", "add", "port", str(PORT), "ipproto", "4")
    run(
        *(
            "ip",
            "link",
            "add",
            "name",
            "fou0",
            "type",
            "ipip",
            "local",
            tokyo.outside,
            "remote",
            paris.outside,
        ),
        *("ttl", "64", "encap", "fou", "encap-sport", "auto", "encap-dport", str(PORT)),
    )
    run("ip", "address", "add", f"{tokyo.address}/32", "dev", "fou0")
    run("ip", "link", "set", "fou0", "up")
    run("ip", "route", "add", "10.244.0.0/16", "dev", "fou0", "src", tokyo.address)
    network.start()
    yield network
    network.close()


def test_the_kernels_fou_and_ours_carry_pings_and_tcp(fou):
    paris, tokyo = fou.peers.values()

    paris.ping(tokyo.address, 3)
    ping(tokyo.namespace, paris.address, 3)
    transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 4 << 20)
