"""Ethernet in the clear: taps joined by VXLAN, with the kernel's own device as the far end,
and with encrypted peers beside.
"""

from __future__ import annotations

import pytest

from tests.netns.network import PATIENCE, Network, ping, transfer_both_ways
from tests.netns.test_clear_udp import keyless
from tests.netns.test_tap import PREFIXES, inside, mac_of, station
from tests.netns.test_vxlan import Kernel, use_ipv6
from tests.netns.topology import wait_until


@pytest.fixture(params=["IPv4", "IPv6", "IPv4 in frames of wire size"])
def kernel(request, lab, tmp_path):
    """Paris has our tap, Tokyo the kernel's VXLAN device, each as a port of a bridge with a station behind it.

    A veth passes what the kernel leaves to the card as it is: checksums, and super-packets whole.
    """
    is_cut = "wire" in request.param
    network = Network(lab, tmp_path, device="tap", encapsulation="vxlan", offloads=not is_cut)
    paris = keyless(network.host("paris", subnets=None))
    tokyo = network._plug(Kernel(network, "tokyo", 2, "vx0", {"public_key": None, "subnets": None}))
    if request.param == "IPv6":
        use_ipv6((paris, tokyo))
    tokyo.mtu = 1500 - (70 if request.param == "IPv6" else 50)
    if is_cut:
        tokyo.namespace.run("ethtool", "-K", "eth0", "tx", "off")
    tokyo.start(paris)
    network.desk = station(lab, network, paris, "desk", "172.16.0.1/24", "fd00:172::1/64")
    network.printer = station(lab, network, tokyo, "printer", "172.16.0.9/24", "fd00:172::9/64")
    network.printer.run("ip", "link", "set", "eth0", "mtu", str(tokyo.mtu))
    network.start()
    for node in (paris, tokyo):
        lab.attach(node.namespace, "lan0", node.interface)
    yield network
    network.close()


def test_stations_reach_each_other_across_by_the_kernel_s_device(kernel):
    paris, tokyo = kernel.peers.values()
    for address in ("172.16.0.9", "fd00:172::9"):
        ping(kernel.desk, address, 3)
        transfer_both_ways(kernel.desk, kernel.printer, address, 8 << 20)

    assert paris.status()["mtu"] == tokyo.mtu
    assert paris.peer(tokyo)["learnt_macs"] >= 1
    assert not paris.faults(tokyo)


def test_encrypted_hosts_and_hosts_in_the_clear_share_a_link(lab, tmp_path):
    network = Network(lab, tmp_path, device="tap", prefix=PREFIXES)
    hosts = []
    for number, (name, more) in enumerate(
        {"paris": {}, "tokyo": {}, "rome": {"encapsulation": "vxlan"}}.items(), 1
    ):
        addresses = [f"10.244.0.{number}", f"fd00:244::{number}"]
        hosts.append(network.host(name, subnets=None, address=addresses, **more))
    network.start()
    paris, tokyo, rome = hosts
    for version in (4, 6):
        for one, other in ((paris, tokyo), (tokyo, rome), (rome, paris)):
            one.ping(inside(other, version), 2)
            other.ping(inside(one, version), 2)
    transfer_both_ways(paris.namespace, rome.namespace, inside(rome), 8 << 20)
    transfer_both_ways(paris.namespace, tokyo.namespace, inside(tokyo), 8 << 20)

    assert paris.peer(rome)["state"] == "unencrypted"
    assert paris.status()["mtu"] == 1404
    expected = mac_of(rome.namespace, rome.interface).hex(":")
    wait_until(  # entries of all namespaces share one table, and an older one may have had to go
        lambda: (
            paris.ping(inside(rome))
            or expected in paris.namespace.run("ip", "neighbour", "show", inside(rome))
        ),
        PATIENCE,
        "the neighbour to be known",
    )
    network.close()
