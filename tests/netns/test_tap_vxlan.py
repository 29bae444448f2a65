"""Unencrypted Ethernet: taps joined by VXLAN, with the kernel's own device as the far end, and
next to encrypted peers.
"""

from __future__ import annotations

import sys

import pytest

from overlay.forwarding import native
from tests.netns import counted as counting
from tests.netns.network import PATIENCE, Network, ping, transfer_both_ways
from tests.netns.test_clear_udp import keyless
from tests.netns.test_tap import PREFIXES, inside, mac_of, station
from tests.netns.test_vxlan import Kernel, use_ipv6
from tests.netns.topology import wait_until


@pytest.fixture(
    params=[
        "IPv4",
        "IPv6",
        "IPv4 in frames of wire size",
        "IPv4, interpreted",
        "IPv4 in frames of wire size, interpreted",
    ]
)
def kernel(request, lab, tmp_path, monkeypatch):
    """Paris has our tap, Tokyo the kernel's VXLAN device, each a port of a bridge with a station behind it."""
    is_compiled = "interpreted" not in request.param
    if not is_compiled:
        monkeypatch.setenv("OVERLAY_NATIVE", "0")
    # A forked process has what its parent loaded
    network = joined(lab, tmp_path, request.param, is_forked=is_compiled)
    network.start()
    connect(network)
    yield network
    network.close()


def joined(lab, tmp_path, how, **options):
    """Return two hosts joined by VXLAN: Paris by our tap, not started yet, and Tokyo by the kernel's device.

    A veth passes what the kernel leaves to the card as it is: checksums, and super-packets whole.
    """
    is_cut = "wire" in how
    network = Network(lab, tmp_path, device="tap", encapsulation="vxlan", offloads=not is_cut, **options)
    paris = keyless(network.host("paris", subnets=None))
    tokyo = network._plug(Kernel(network, "tokyo", 2, "vx0", {"public_key": None, "subnets": None}))
    if "IPv6" in how:
        use_ipv6((paris, tokyo))
    tokyo.mtu = 1500 - (70 if "IPv6" in how else 50)
    if is_cut:
        tokyo.namespace.run("ethtool", "-K", "eth0", "tx", "off")
    tokyo.start(paris)
    network.desk = station(lab, network, paris, "desk", "172.16.0.1/24", "fd00:172::1/64")
    network.printer = station(lab, network, tokyo, "printer", "172.16.0.9/24", "fd00:172::9/64")
    network.printer.run("ip", "link", "set", "eth0", "mtu", str(tokyo.mtu))
    return network


def connect(network):
    """Attach the tap and the kernel's device to the bridges."""
    for node in network.peers.values():
        network.lab.attach(node.namespace, "lan0", node.interface)


def test_stations_reach_each_other_across_by_the_kernel_s_device(kernel):
    paris, tokyo = kernel.peers.values()
    for address in ("172.16.0.9", "fd00:172::9"):
        ping(kernel.desk, address, 3)
        transfer_both_ways(kernel.desk, kernel.printer, address, 4 << 20)

    assert paris.status()["mtu"] == tokyo.mtu
    assert paris.peer(tokyo)["learnt_macs"] >= 1
    assert not paris.faults(tokyo)


@pytest.mark.skipif(native.core is None, reason=f"no compiled packet path: {native.missing}")
@pytest.mark.parametrize("how", ["IPv4", "IPv4 in frames of wire size"])
def test_frames_of_a_stream_are_not_handed_back_to_python(lab, tmp_path, how):
    network = joined(lab, tmp_path, how)
    paris, tokyo = network.peers.values()
    counted = tmp_path / "counted"
    counted.write_bytes(bytes(counting.SIZE))
    paris.launch_with(sys.executable, counting.__file__, str(counted))
    paris.wait_ready()
    connect(network)
    ping(network.desk, "172.16.0.9", 3)
    before = int.from_bytes(counted.read_bytes())

    transfer_both_ways(network.desk, network.printer, "172.16.0.9", 4 << 20)

    passed = sum(paris.peer(tokyo)[name] for name in ("rx_packets", "tx_packets"))
    assert before > 0, "the frames that the bridge learns from"
    # Once a second Python asks the kernel about the path; it also handles the frames that follow such a frame in its
    # batch, and on a busy machine the transfer takes seconds.
    assert int.from_bytes(counted.read_bytes()) - before < passed / 4
    network.close()


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
    transfer_both_ways(paris.namespace, rome.namespace, inside(rome), 4 << 20)
    transfer_both_ways(paris.namespace, tokyo.namespace, inside(tokyo), 4 << 20)

    assert paris.peer(rome)["state"] == "unencrypted"
    assert paris.status()["mtu"] == 1404
    expected = mac_of(rome.namespace, rome.interface).hex(":")
    wait_until(  # all namespaces share one table, and an older entry may have been evicted
        lambda: (
            paris.ping(inside(rome))
            or expected in paris.namespace.run("ip", "neighbour", "show", inside(rome))
        ),
        PATIENCE,
        "the neighbour to be known",
    )
    network.close()
