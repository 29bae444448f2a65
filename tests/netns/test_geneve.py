"""The encapsulation ``geneve``: between two agents, with a tun and with a tap, and between an agent and the kernel's
Geneve device.
"""

from __future__ import annotations

import pytest

from peers.mac import derived_mac
from tests.netns.network import PATIENCE, Network, ping, transfer_both_ways
from tests.netns.test_clear_udp import keyless, send_raw
from tests.netns.test_vxlan import KERNEL_MAC, Kernel, reach_each_other, use_ipv6
from tests.netns.topology import wait_until
from tests.packets import udp

PORT = 6081


class KernelGeneve(Kernel):
    """A node whose tunnel is the kernel's Geneve device."""

    def options(self, other, vni):
        outside = "outside6" if ":" in self.settings["endpoint"] else "outside"
        return "type", "geneve", "id", str(vni), "dstport", str(PORT), "remote", getattr(other, outside)


@pytest.fixture(params=["IPv4", "IPv6"])
def pair(request, lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="geneve")
    hosts = [keyless(network.host(name)) for name in ("paris", "tokyo")]
    if request.param == "IPv6":
        use_ipv6(hosts)
    network.web, network.shop = hosts[0].container("web"), hosts[1].container("shop")
    network.start()
    yield network
    network.close()


def test_containers_reach_each_other_in_geneve(pair):
    paris, tokyo = pair.peers.values()
    sniffer = tokyo.namespace.sniff("eth0")

    for inner in ("address", "address6"):
        ping(pair.web.namespace, getattr(pair.shop, inner), 2, "-s", "8000")
        transfer_both_ways(pair.web.namespace, pair.shop.namespace, getattr(pair.shop, inner), 4 << 20)

    assert any(bytes.fromhex("17c1") in frame[:60] for frame in sniffer.frames())  # port 6081
    assert paris.peer(tokyo)["encapsulation"] == "geneve"
    assert not paris.faults(tokyo)


def test_an_option_is_skipped_and_a_critical_one_has_the_packet_refused(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="geneve")
    paris, tokyo = (keyless(network.host(name)) for name in ("paris", "tokyo"))
    network.start()
    packet = udp(b"x", source=tokyo.address, destination=paris.address)
    frame = derived_mac("paris") + derived_mac("tokyo") + b"\x08\x00" + packet
    tokyo.stop()
    before = paris.peer(tokyo)["rx_packets"]

    for header in ("01006558 00000100 01020100", "01406558 00000100 01028100"):
        send_raw(tokyo, bytes.fromhex(header) + frame, paris.outside, source=tokyo.outside, port=PORT)

    wait_until(
        lambda: paris.drops(tokyo).get("geneve_critical"), PATIENCE, "the critical option to be refused"
    )
    assert paris.peer(tokyo)["rx_packets"] == before + 1
    network.close()


@pytest.fixture(params=["IPv4", "IPv6"])
def kernel(request, lab, tmp_path):
    """Paris runs our agent, Tokyo has the kernel's Geneve device; a container behind each."""
    network = Network(lab, tmp_path, encapsulation="geneve")
    paris = keyless(network.host("paris"))
    tokyo = network._plug(KernelGeneve(network, "tokyo", 2, "gnv0", {"mac": KERNEL_MAC, "public_key": None}))
    if request.param == "IPv6":
        use_ipv6((paris, tokyo))
    tokyo.mtu = 1500 - (70 if request.param == "IPv6" else 50)
    network.web, network.shop = paris.container("web"), tokyo.container("shop", mtu=tokyo.mtu)
    network.start()
    yield network
    network.close()


def test_the_kernel_s_device_and_ours_carry_pings_and_tcp(kernel):
    paris, tokyo = kernel.peers.values()
    tokyo.start(paris)

    reach_each_other(kernel)

    drops = paris.drops(tokyo)
    assert drops.keys() <= {"multicast"}, drops  # what a kernel announces of its multicast groups
