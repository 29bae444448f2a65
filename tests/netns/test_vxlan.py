"""The encapsulation ``vxlan``: between two agents, and between an agent and the kernel's VXLAN device."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess

import pytest

from overlay.wire.ethernet import ARP
from peers.mac import derived_mac, format_mac
from tests import packets
from tests.netns.network import PATIENCE, Network, Node, is_silent, ping, transfer_both_ways, udp_pair
from tests.netns.test_clear_udp import keyless, send_raw
from tests.netns.topology import CommandError, wait_until

PORT = 4789
HEADER = bytes.fromhex("08000000 00000100")
KERNEL_MAC = "02:00:5e:10:00:99"


def use_ipv6(hosts):
    for host in hosts:
        host.settings["endpoint"] = f"[{host.outside6}]"


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def pair(request, module_lab, tmp_path_factory):
    """Paris and Tokyo with VXLAN between them, each with a container."""
    network = Network(module_lab, tmp_path_factory.mktemp("vxlan"), encapsulation="vxlan")
    hosts = [keyless(network.host(name)) for name in ("paris", "tokyo")]
    if request.param == "IPv6":
        use_ipv6(hosts)
    network.web, network.shop = hosts[0].container("web"), hosts[1].container("shop")
    network.start()
    yield network
    network.close()


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_containers_and_hosts_reach_each_other(pair, inner):
    paris, tokyo = pair.peers.values()
    for one, other in ((pair.web, pair.shop), (pair.shop, pair.web), (paris, tokyo), (pair.web, tokyo)):
        one.ping(getattr(other, inner), 3)


@pytest.mark.parametrize("inner", ["address", "address6"])
@pytest.mark.parametrize("size", [0, 1, 1400, 8000, 60000])
def test_pings_of_any_size_are_answered(pair, inner, size):
    ping(pair.web.namespace, getattr(pair.shop, inner), 2, "-s", str(size))


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_transfers_arrive_unchanged_both_ways(pair, inner):
    transfer_both_ways(pair.web.namespace, pair.shop.namespace, getattr(pair.shop, inner), 4 << 20)
    drops = [
        host.drops(other) for host in pair.peers.values() for other in pair.peers.values() if other != host
    ]
    assert not any(drops), drops


def test_mtu_ports_and_macs_are_shown(pair, request):
    paris, tokyo = pair.peers.values()
    status, row = paris.status(), paris.peer(tokyo)

    assert status["mtu"] == 1500 - (70 if "IPv6" in request.node.callspec.id else 50)
    assert status["port"] == PORT
    assert (row["mac"], row["own_mac"]) == tuple(format_mac(derived_mac(name)) for name in ("tokyo", "paris"))
    # There may be one more for each family, which has asked the kernel about a path and receives nothing.
    wait_until(lambda: len(bound(paris)) <= 36, PATIENCE, "sockets of before to close")
    assert bound(paris).count(PORT) == 2
    assert sum(port >= 49152 for port in bound(paris)) >= 32


def bound(host):
    """Return the UDP ports of *host*'s sockets."""
    return sorted(int(port) for port in re.findall(r":(\d+) ", host.namespace.run("ss", "-lunH")))


def test_flows_leave_from_several_ports_and_each_from_one(pair):
    paris = pair.peers["paris"]
    with paris.namespace.entered():
        sniffer = paris.namespace.sniff("eth0")
    flows = {}
    for _ in range(40):
        with udp_pair(pair.web.namespace, pair.shop.namespace, pair.shop.address) as (near, far):
            for _ in range(3):
                near.send(b"x")
                assert far.recv(10) == b"x"
    for frame in sniffer.frames():
        outer = 34 if frame[12:14] == b"\x08\x00" else 54
        inner = frame[outer + 8 + 22 :]
        if frame[outer + 2 : outer + 4] == PORT.to_bytes(2, "big") and inner[9:10] == b"\x11":
            flows.setdefault(inner[20:24], set()).add(frame[outer : outer + 2])

    assert len(flows) == 40
    assert all(len(ports) == 1 for ports in flows.values())
    assert len(set.union(*flows.values())) > 5


def test_tshark_names_every_layer_and_finds_nothing_wrong(pair, tmp_path, request):
    if shutil.which("tshark") is None:
        pytest.skip("this test needs the program tshark")
    paris, tokyo = pair.peers.values()
    with paris.namespace.entered():
        sniffer = paris.namespace.sniff("eth0")
    frames = []
    for inner in ("address", "address6"):
        paris.ping(getattr(tokyo, inner), 3)
        ping(pair.web.namespace, getattr(pair.shop, inner), 2, "-s", "3000")
        transfer_both_ways(pair.web.namespace, pair.shop.namespace, getattr(pair.shop, inner), 10_000)
        frames += sniffer.frames()
    path = tmp_path / "underlay.pcap"
    path.write_bytes(pcap(frames))

    outer = "ipv6" if "IPv6" in request.node.callspec.id else "ip"
    shown = read(path, "-Y", "vxlan", "-T", "fields", "-e", "frame.protocols")
    stacks = {tuple(line.split(":")[:8]) for line in shown}
    for inner in ("ip", "ipv6"):
        last = "icmp" if inner == "ip" else "icmpv6"
        for layer in (last, "tcp"):
            assert ("eth", "ethertype", outer, "udp", "vxlan", "eth", "ethertype", inner) in stacks
            assert any(line.split(":")[7:9] == [inner, layer] for line in shown), layer
    # A veth passes segments larger than the wire's whole; the device computes the checksums of a super-packet.
    assert read(path, "-Y", "_ws.malformed || _ws.expert.severity == error") == []
    assert set(read(path, "-Y", "vxlan", "-T", "fields", "-e", "vxlan.vni", "-e", "vxlan.flags")) == {
        "1\t0x0800"
    }


def pcap(frames):
    """Return a capture file of Ethernet frames (draft-ietf-opsawg-pcap)."""
    records = [struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames]
    return struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1) + b"".join(records)


def read(path, *arguments):
    done = subprocess.run(["tshark", "-r", path, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Kernel(Node):
    """A node whose tunnel is the kernel's VXLAN device."""

    def options(self, other, vni):
        outside = "outside6" if ":" in self.settings["endpoint"] else "outside"
        ends = "local", getattr(self, outside), "remote", getattr(other, outside)
        return "type", "vxlan", "id", str(vni), "dstport", str(PORT), *ends

    def start(self, other, vni=1, *options):
        device, own = self.interface, self.options(other, vni)
        try:
            self.namespace.run(
                *("ip", "link", "add", device, "mtu", str(self.mtu), "address", KERNEL_MAC), *own, *options
            )
        except CommandError as error:
            pytest.skip(f"this kernel has no {own[1]} device: {error}")
        for address in (f"{self.address}/16", f"{self.address6}/32"):
            self.namespace.run("ip", "address", "add", address, "dev", device, "nodad")
        self.namespace.run("ip", "link", "set", device, "up")


@pytest.fixture(params=["IPv4", "IPv6", "IPv4 in frames of wire size"])
def kernel(request, lab, tmp_path):
    """Paris runs our agent, Tokyo has the kernel's VXLAN device; a container behind each.

    A veth passes what the kernel leaves to the card as it is: checksums, and super-packets whole.
    """
    is_cut = "wire" in request.param
    network = Network(lab, tmp_path, encapsulation="vxlan", offloads=not is_cut)
    paris = keyless(network.host("paris"))
    tokyo = network._plug(Kernel(network, "tokyo", 2, "vx0", {"mac": KERNEL_MAC, "public_key": None}))
    if request.param == "IPv6":
        use_ipv6((paris, tokyo))
    tokyo.mtu = 1500 - (70 if request.param == "IPv6" else 50)
    if is_cut:
        tokyo.namespace.run("ethtool", "-K", "eth0", "tx", "off")
    network.web, network.shop = paris.container("web"), tokyo.container("shop", mtu=tokyo.mtu)
    network.start()
    yield network
    network.close()


def reach_each_other(network):
    paris, tokyo = network.peers.values()
    for inner in ("address", "address6"):
        for one, other in ((tokyo, paris), (tokyo, network.web), (network.shop, network.web)):
            one.ping(getattr(other, inner), 3)
            other.ping(getattr(one, inner), 3)
        ping(network.web.namespace, getattr(network.shop, inner), 2, "-s", "8000")
        transfer_both_ways(
            network.web.namespace, network.shop.namespace, getattr(network.shop, inner), 8 << 20
        )
        transfer_both_ways(tokyo.namespace, paris.namespace, getattr(paris, inner), 1 << 20)


def test_a_kernel_that_asks_for_addresses_is_answered_and_both_carry_pings_and_tcp(kernel):
    paris, tokyo = kernel.peers.values()
    tokyo.start(paris)

    reach_each_other(kernel)

    mac = format_mac(derived_mac("paris"))
    for address in (paris.address, paris.address6, kernel.web.address, kernel.web.address6):
        wait_until(  # all namespaces share one table, and an older entry may have been evicted
            lambda address=address: (
                tokyo.ping(address)
                or f"lladdr {mac}" in tokyo.namespace.run("ip", "neigh", "show", address, "dev", "vx0")
            ),
            PATIENCE,
            f"{address} to be known",
        )
    drops = paris.drops(tokyo)
    assert drops.keys() <= {"multicast"}, drops  # what a kernel announces of its multicast groups


def test_a_kernel_with_written_neighbours_asks_nobody(kernel):
    paris, tokyo = kernel.peers.values()
    outside = paris.outside6 if ":" in tokyo.settings["endpoint"] else paris.outside
    tokyo.start(paris, 1, "nolearning")
    mac = format_mac(derived_mac("paris"))
    namespace = tokyo.namespace
    # As with flannel: one address of the far end stands for all behind it
    namespace.run("ip", "link", "set", "vx0", "arp", "off")
    namespace.run("bridge", "fdb", "add", mac, "dev", "vx0", "dst", outside)
    for prefix, gateway in (("10.244.1.0/24", paris.address), ("fd00:244:1::/64", paris.address6)):
        namespace.run("ip", "neigh", "add", gateway, "lladdr", mac, "dev", "vx0", "nud", "permanent")
        namespace.run("ip", "route", "add", prefix, "via", gateway, "dev", "vx0", "onlink")
    with paris.namespace.entered():
        sniffer = paris.namespace.sniff("eth0")

    reach_each_other(kernel)

    inner = [frame[62:] if frame[12:14] == b"\x08\x00" else frame[82:] for frame in sniffer.frames()]
    assert not any(each[:2] == b"\x08\x06" for each in inner)


def test_another_vni_a_tag_and_foreign_frames_are_dropped_and_counted(kernel):
    paris, tokyo = kernel.peers.values()
    tokyo.start(paris, 2)
    assert is_silent(tokyo.namespace, paris.address)
    wait_until(
        lambda: paris.drops(tokyo).get("neighbour"), PATIENCE, "a question of another VNI to be dropped"
    )
    to, by = derived_mac("paris"), bytes.fromhex(KERNEL_MAC.replace(":", ""))
    packet = packets.udp(b"x", source=tokyo.address, destination=paris.address)
    spoofed = packets.udp(b"x", source="10.9.9.9", destination=paris.address)
    asking = ARP.pack(
        1, 0x800, 6, 4, 1, by, socket.inet_aton("10.9.9.9"), bytes(6), socket.inet_aton(paris.address)
    )

    for payload, reason in (
        (bytes.fromhex("08000000 00000200") + to + by + b"\x08\x00" + packet, "vni"),
        (bytes(8) + to + by + b"\x08\x00" + packet, "vxlan_flags"),
        (HEADER + to + by + b"\x81\x00\x00\x01\x08\x00" + packet, "vlan"),
        (HEADER + by + by + b"\x08\x00" + packet, "mac"),
        (HEADER + b"\xff" * 6 + by + b"\x08\x00" + packet, "multicast"),
        (HEADER + to + by + b"\x08\x00" + spoofed, "source"),
        (HEADER + to + by + b"\x08\x00" + packet[:-1], "inner_length"),
        (HEADER + to + by + b"\x08\x06" + asking, "neighbour"),
        (b"garbage", "vxlan_short"),
    ):
        before = paris.drops(tokyo).get(reason, 0)
        send_outside(tokyo, payload, paris)
        wait_until(lambda: paris.drops(tokyo).get(reason, 0) > before, PATIENCE, f"{reason} to be counted")  # noqa: B023
    before = paris.peer(tokyo)["rx_packets"]
    send_outside(tokyo, HEADER + to + by + b"\x08\x00" + packet, paris)
    wait_until(lambda: paris.peer(tokyo)["rx_packets"] > before, PATIENCE, "a genuine packet to be taken")

    tokyo.namespace.run("ip", "address", "add", "192.0.2.66/24", "dev", "eth0")
    send_raw(tokyo, HEADER + to + by + b"\x08\x00" + packet, paris.outside, source="192.0.2.66", port=PORT)
    wait_until(lambda: paris.drops().get("outer_source"), PATIENCE, "a foreign outer source to be dropped")


def send_outside(node, payload, to):
    """Send a datagram from *node*'s endpoint to that of *to*."""
    is_ipv6 = ":" in node.settings["endpoint"]
    with node.namespace.entered():
        udp = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.bind((node.outside6 if is_ipv6 else node.outside, 0))
        udp.sendto(payload, (to.outside6 if is_ipv6 else to.outside, PORT))


def test_another_vni_and_port_are_taken_by_reload(pair):
    paris, tokyo = pair.peers.values()
    before = dict(pair.settings)
    pair.settings |= {"vni": 77, "vxlan_port": 8472}
    for host in (paris, tokyo):
        host.reload()
    with paris.namespace.entered():
        sniffer = paris.namespace.sniff("eth0")
    try:
        paris.ping(tokyo.address, 3)
        frames = [frame for frame in sniffer.frames() if len(frame) > 90]
        assert any(bytes.fromhex("08000000 00004d00") in frame[:80] for frame in frames)
        assert ":8472 " in paris.namespace.run("ss", "-lunH")
    finally:
        pair.settings.clear()
        pair.settings.update(before)
        for host in (paris, tokyo):
            host.reload()
    paris.ping(tokyo.address)


def test_check_lists_the_macs(pair):
    paris = pair.peers["paris"]

    done = paris.overlay("check", "--peers", str(paris.peers_path), "--key", str(paris.key_path), "--json")

    macs = [each["mac"] for each in json.loads(done.stdout)["peers"]]
    assert macs == [format_mac(derived_mac(name)) for name in ("paris", "tokyo")]
