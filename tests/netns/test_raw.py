"""The encapsulations ``ipip`` and ``gre``: between two agents, and between an agent and an independent tunnel or the
kernel's own.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import packets
from tests.netns.network import Network, Node, ping, transfer_both_ways
from tests.netns.test_clear_udp import keyless
from tests.netns.topology import PATIENCE, wait_until

RAW_TUNNEL = Path(__file__).with_name("raw_tunnel.py")
IPIP, SIT, GRE = 4, 41, 47
KINDS = [("ipip", {}), ("gre", {}), ("gre", {"gre_key": 7})]
NAMES = ["ipip", "gre", "gre with a key"]


def send_raw(node, payload, to, protocol=IPIP, *, source=None, tos=0):
    """Send one packet of *protocol* from *node*, from the address *source*."""
    with node.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    with raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        raw.bind((source or "0.0.0.0", 0))
        raw.sendto(payload, (to, 0))


def outer_headers(sniffer, protocol=IPIP):
    """Return the IPv4 headers of *protocol* that were seen around echo requests, each with its payload.

    A kernel may also send an error, such as about a port to which the test before has sent.
    """
    frames = [frame[14:] for frame in sniffer.frames() if frame[12:14] == b"\x08\x00"]
    return [packet for packet in frames if packet[9] == protocol and is_echo_request(packet[20:])]


def is_echo_request(packet):
    if packet[0] >> 4 == 4:
        return (packet[9], packet[20]) == (socket.IPPROTO_ICMP, 8)
    return (packet[6], packet[40]) == (socket.IPPROTO_ICMPV6, 128)


@pytest.fixture(scope="module", params=[(*kind, outer) for kind in KINDS for outer in (4, 6)], ids=str)
def clear(request, module_lab, tmp_path_factory):
    """Paris and Tokyo, each with a container; neither has a key or a port."""
    name, settings, outer = request.param
    network = Network(module_lab, tmp_path_factory.mktemp("raw"), encapsulation=name, **settings)
    hosts = [keyless(network.host(each)) for each in ("paris", "tokyo")]
    if outer == 6:
        for host in hosts:
            host.settings["endpoint"] = host.outside6
    network.web, network.shop = hosts[0].container("web"), hosts[1].container("shop")
    network.mtu = 1500 - (20 if outer == 4 else 40) - {0: 0, 1: 4, 2: 8}[KINDS.index((name, settings))]
    network.start()
    yield network
    network.close()


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_containers_and_hosts_reach_each_other_over_raw_sockets(clear, inner):
    paris, tokyo = clear.peers.values()
    for one, other in ((clear.web, clear.shop), (clear.shop, clear.web), (paris, tokyo), (clear.web, tokyo)):
        one.ping(getattr(other, inner), 3)
    for size in (0, 1, 1400, 8000, 60000):
        ping(clear.web.namespace, getattr(clear.shop, inner), 2, "-s", str(size))


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_transfers_arrive_unchanged_both_ways_over_raw_sockets(clear, inner):
    transfer_both_ways(clear.web.namespace, clear.shop.namespace, getattr(clear.shop, inner), 4 << 20)

    drops = [host.drops() for host in clear.peers.values()]
    assert not any("source" in each or "outer_source" in each for each in drops)
    assert not clear.peers["paris"].faults(clear.peers["tokyo"])


def test_a_node_without_ports_says_so_and_has_its_mtu(clear):
    paris, tokyo = clear.peers.values()
    status = paris.status()

    assert (status["port"], status["mtu"]) == (None, clear.mtu)
    assert " port=- " in paris.log
    peer = paris.peer(tokyo)
    assert (peer["state"], peer["endpoint"]) == ("unencrypted", tokyo.settings["endpoint"])
    assert "no port" in paris.overlay("status", "--interface", paris.interface).stdout
    # None except the socket that may have asked the kernel about the path, which receives nothing.
    assert len(paris.namespace.run("ss", "-lunH").splitlines()) <= 1


def test_iperf_runs_over_raw_sockets(clear):
    server = clear.shop.namespace.popen("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    wait_until(lambda: ":5201" in clear.shop.run("ss", "-ltnH"), PATIENCE, "iperf3 to listen")

    said = clear.web.run("iperf3", "-c", clear.shop.address, "-n", "8M", "-b", "100M", "-J")

    # Packets in flight when the client ends are not counted.
    assert json.loads(said)["end"]["sum_received"]["bytes"] > 4 << 20
    server.wait(PATIENCE)


# The outer header


@pytest.fixture(scope="module")
def pair(module_lab, tmp_path_factory):
    """Paris and Tokyo, ipip over IPv4, with frames of wire size between them."""
    network = Network(module_lab, tmp_path_factory.mktemp("pair"), encapsulation="ipip", offloads=False)
    for name in ("paris", "tokyo"):
        keyless(network.host(name))
    network.start()
    yield network
    network.close()


@pytest.mark.parametrize("tos", [0x00, 0x01, 0x02, 0xB8, 0xBA])
@pytest.mark.parametrize("df", ["do", "dont"])
def test_the_outer_header_follows_the_inner_one(pair, tos, df):
    paris, tokyo = pair.peers.values()
    sniffer = tokyo.namespace.sniff("eth0")

    ping(paris.namespace, tokyo.address, 1, "-Q", hex(tos), "-M", df, "-t", "9")

    requests = [seen for seen in outer_headers(sniffer) if seen[12:16] == socket.inet_aton(paris.outside)]
    assert requests
    assert {(seen[1], seen[6] & 0x40, seen[8], seen[28]) for seen in requests} == {
        (tos, 0x40 if df == "do" else 0, 64, 9)
    }


def test_ipv6_inside_is_protocol_41_and_is_not_cut(pair):
    paris, tokyo = pair.peers.values()
    sniffer = tokyo.namespace.sniff("eth0")

    ping(paris.namespace, tokyo.address6, 1, "-Q", "0xba")

    seen = outer_headers(sniffer, SIT)
    assert {(packet[1], packet[6] & 0x40) for packet in seen if packet[12:16] == b"\xc0\0\2\1"} == {
        (0xBA, 0x40)
    }


def test_the_ttl_is_that_of_the_peers_file_or_inherited(pair):
    paris, tokyo = pair.peers.values()
    for ttl, outer in ((9, {9}), ("inherit", {33}), (None, {64})):
        pair.settings["ttl"] = ttl
        paris.write()
        paris.reload()
        paris.status()  # it answers after the reload: no later packet is accepted with the old TTL
        sniffer = tokyo.namespace.sniff("eth0")

        ping(paris.namespace, tokyo.address, 2, "-t", "33")

        seen = outer_headers(sniffer)
        assert {each[8] for each in seen if each[12:16] == socket.inet_aton(paris.outside)} == outer


def test_larger_packets_than_the_path_takes_are_cut_outside_or_dropped_as_the_inner_one_says(pair):
    paris, tokyo = pair.peers.values()
    paris.namespace.run("ip", "route", "replace", tokyo.outside, "dev", "eth0", "mtu", "lock", "1400")
    try:
        before = paris.drops(tokyo).get("too_big", 0)
        ping(paris.namespace, tokyo.address, 1, "-M", "dont", "-s", "1440")
        assert paris.drops(tokyo).get("too_big", 0) == before
    finally:
        paris.namespace.run("ip", "route", "del", tokyo.outside)


def test_the_congestion_mark_of_a_router_goes_inside(pair):
    paris, tokyo = pair.peers.values()
    inside = {name: packets.udp(b"x", source=tokyo.address, destination=paris.address, tos=tos, ports=(9, port))
              for name, tos, port in (("capable", 2, 4001), ("not capable", 0, 4002))}  # fmt: skip
    with paris.namespace.entered():
        listening = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in inside]
    for udp, port in zip(listening, (4001, 4002), strict=True):
        udp.bind((paris.address, port))
        udp.settimeout(PATIENCE)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)

    for payload in inside.values():
        send_raw(tokyo, payload, paris.outside, tos=3)

    _, control, _, _ = listening[0].recvmsg(100, 100)
    assert control[0][2][0] & 3 == 3
    wait_until(lambda: paris.drops(tokyo).get("ecn"), PATIENCE, "a mark that nobody heeds to be dropped")
    for udp in listening:
        udp.close()


# Who may send


def test_foreign_addresses_and_garbage_are_dropped_and_counted(pair):
    paris, tokyo = pair.peers.values()
    tokyo.namespace.run("ip", "address", "add", "192.0.2.66/24", "dev", "eth0")
    genuine = packets.udp(b"x", source=tokyo.address, destination=paris.address)
    spoofed = packets.udp(b"x", source="10.9.9.9", destination=paris.address)

    send_raw(tokyo, genuine, paris.outside, source="192.0.2.66")
    wait_until(lambda: paris.drops().get("outer_source"), PATIENCE, "a foreign outer source to be dropped")
    for payload, reason in (
        (spoofed, "source"),
        (b"\0 no packet", "inner_version"),
        (genuine[:-1], "inner_length"),
    ):
        send_raw(tokyo, payload, paris.outside, source=tokyo.outside)
        wait_until(lambda reason=reason: paris.drops(tokyo).get(reason), PATIENCE, f"{reason} to be counted")

    before = paris.peer(tokyo)["rx_packets"]
    send_raw(tokyo, genuine, paris.outside, source=tokyo.outside)
    wait_until(lambda: paris.peer(tokyo)["rx_packets"] > before, PATIENCE, "a genuine packet to be taken")


def test_a_director_s_clients_are_let_in_by_its_sources(pair):
    paris, tokyo = pair.peers.values()
    client = packets.udp(b"x", source="198.51.100.9", destination=paris.address)
    tokyo.settings["sources"] = ["0.0.0.0/0"]
    paris.write()
    paris.reload()
    before = paris.peer(tokyo)["rx_packets"]
    try:
        send_raw(tokyo, client, paris.outside)
        wait_until(
            lambda: paris.peer(tokyo)["rx_packets"] > before, PATIENCE, "a client's packet to be taken"
        )
        refused = paris.drops(tokyo).get("source", 0)
        own = packets.udp(b"x", source=paris.address, destination=paris.address)
        send_raw(tokyo, own, paris.outside)
        wait_until(
            lambda: paris.drops(tokyo).get("source", 0) > refused, PATIENCE, "our own address to be refused"
        )
    finally:
        del tokyo.settings["sources"]
        paris.write()
        paris.reload()


# Other implementations


class Tunnel(Node):
    """A node that runs the independent tunnel."""

    def start(self, mode, far, key):
        command = [
            sys.executable,
            RAW_TUNNEL,
            mode,
            far,
            f"{self.address}/32,{self.address6}/128",
            str(key or "-"),
        ]
        self.process = self.namespace.popen(
            *command, "10.244.1.0/24", "fd00:244:1::/64", stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == "ready\n"


def between_ours_and_another(network, name, outer, kind=Node):
    """Return Paris, which runs our agent, and Tokyo, each with a container."""
    paris = keyless(network.host("paris"))
    tokyo = network._plug(kind(network, "tokyo", 2, "tunnel0", {}))
    tokyo.settings |= {"public_key": None, "encapsulation": name}
    if outer == 6:
        paris.settings["endpoint"], tokyo.settings["endpoint"] = paris.outside6, tokyo.outside6
    network.web, network.shop = paris.container("web"), tokyo.container("shop", mtu=1440)
    network.start()
    return paris, tokyo


def see_that_all_reach_each_other(network, inners=("address", "address6")):
    web, shop = network.web, network.shop
    for inner in inners:
        web.ping(getattr(shop, inner), 3)
        shop.ping(getattr(web, inner), 3)
        ping(web.namespace, getattr(shop, inner), 2, "-s", "8000")
        transfer_both_ways(web.namespace, shop.namespace, getattr(shop, inner), 2 << 20)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize(("name", "settings"), KINDS, ids=NAMES)
def test_an_independent_tunnel_and_ours_carry_pings_and_tcp(lab, tmp_path, name, settings, outer):
    network = Network(lab, tmp_path, encapsulation=name, **settings)
    paris, tokyo = between_ours_and_another(network, name, outer, Tunnel)
    tokyo.start(name, paris.settings["endpoint"], settings.get("gre_key"))

    see_that_all_reach_each_other(network)

    network.close()


def test_doctor_takes_an_error_from_inside_the_tunnel_for_an_answer(lab, tmp_path):
    """A router without an agent need not have the address that the peers file gives it."""
    network = Network(lab, tmp_path, encapsulation="ipip")
    paris, tokyo = between_ours_and_another(network, "ipip", 4, Tunnel)
    tokyo.start("ipip", paris.outside, None)
    tokyo.namespace.run("ip", "address", "delete", f"{tokyo.address}/32", "dev", "tunnel0")
    tokyo.namespace.run("ip", "address", "add", "10.244.2.77/32", "dev", "tunnel0")
    tokyo.namespace.run("ip", "route", "replace", "10.244.1.0/24", "dev", "tunnel0", "src", "10.244.2.77")

    findings = json.loads(paris.overlay("doctor", "--json").stdout)["findings"]
    (finding,) = (each for each in findings if each["peer"] == tokyo.name)

    assert (finding["name"], finding["severity"]) == ("echo_ignored", "notice"), finding
    assert finding["remedy"].startswith('10.244.2.77 says "host unreachable" through it')
    network.close()


def test_a_wrong_key_none_where_one_is_and_one_where_none_is_are_counted_as_such(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="gre", gre_key=7)
    paris, tokyo = between_ours_and_another(network, "gre", 4)
    genuine = packets.udp(b"x", source=tokyo.address, destination=paris.address)

    def refused(header):
        before = paris.drops(tokyo).get("gre_key", 0)
        send_raw(tokyo, bytes.fromhex(header) + genuine, paris.outside, GRE)
        wait_until(
            lambda: paris.drops(tokyo).get("gre_key", 0) > before, PATIENCE, "a wrong key to be counted"
        )

    refused("2000080000000008")
    refused("00000800")
    network.settings["gre_key"] = None
    paris.write()
    paris.reload()
    refused("2000080000000007")
    send_raw(tokyo, bytes.fromhex("00000800") + genuine, paris.outside, GRE)
    wait_until(lambda: paris.peer(tokyo)["rx_packets"], PATIENCE, "a packet without a key to be taken")

    network.close()


# A device that merges packets


@pytest.mark.parametrize("inner", ["address", "address6"])
@pytest.mark.parametrize(("name", "settings"), KINDS, ids=NAMES)
def test_what_a_device_with_gro_merges_arrives_unchanged_also_behind_a_narrower_link(
    lab, tmp_path, name, settings, inner
):
    network = Network(lab, tmp_path, encapsulation=name, offloads=False, **settings)
    hosts = [keyless(network.host(each)) for each in ("paris", "tokyo")]
    web, shop = hosts[0].container("web"), hosts[1].container("shop", mtu=1300)
    for host in hosts:
        host.namespace.run("ethtool", "-K", "eth0", "gro", "on")
        # The kernel waits this long for more to merge.
        for file, value in (("gro_flush_timeout", "2000000"), ("napi_defer_hard_irqs", "10")):
            host.namespace.run("sh", "-c", f"echo {value} > /sys/class/net/eth0/{file}")
    network.start()
    web.ping(getattr(shop, inner))
    with hosts[1].namespace.entered():
        seen = socket.socket(
            socket.AF_INET, socket.SOCK_RAW, GRE if name == "gre" else IPIP if inner == "address" else SIT
        )
    seen.setblocking(False)
    seen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    transfer_both_ways(web.namespace, shop.namespace, getattr(shop, inner), 4 << 20)

    sizes = []
    while True:
        try:
            sizes.append(len(seen.recv(100_000)))
        except BlockingIOError:
            break
    seen.close()
    assert max(sizes) > 1500, "nothing was merged, so nothing was tested"
    assert not hosts[1].faults(hosts[0])
    network.close()


# Reload


def test_encapsulations_change_by_reload_while_pings_go_on(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="ipip")
    paris, tokyo = (keyless(network.host(name)) for name in ("paris", "tokyo"))
    network.start()
    for name in ("gre", "udp", "ipip"):
        network.settings["encapsulation"] = name
        for host in (paris, tokyo):
            host.write()
        for host in (paris, tokyo):
            assert "INFO reloaded" in host.reload()
        paris.ping(tokyo.address, 3)
        paris.ping(tokyo.address6, 3)
        assert paris.peer(tokyo)["encapsulation"] == name
    network.close()


def test_without_the_capability_for_raw_sockets_up_says_which_and_what_for(lab, tmp_path):
    network = Network(lab, tmp_path, encapsulation="gre")
    paris = keyless(network.host("paris"))
    keyless(network.host("tokyo"))
    paris.write()
    code = (
        "import sys; from overlay.host.process.privileges import keep_only, Capability\n"
        "keep_only(set(Capability) - {Capability.NET_RAW})\n"
        "from overlay.cli import main; main()"
    )
    done = paris.namespace.completed(
        *(sys.executable, "-c", code, "up", "--node", "paris"),
        *("--peers", str(paris.peers_path), "--key", str(paris.key_path), "--interface", "overlay0"),
    )

    assert done.returncode == 1
    assert "the encapsulation gre needs the capability CAP_NET_RAW" in done.stderr
    assert "Traceback" not in done.stderr
