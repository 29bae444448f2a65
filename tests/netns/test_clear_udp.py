"""The encapsulation ``udp``: between two agents, between an agent and flannel's backend, and in a mixed network."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import packets
from tests.netns.network import Network, Node, ping, transfer_both_ways
from tests.netns.topology import PATIENCE, wait_until

FLANNEL = Path(__file__).with_name("flannel_udp.py")
PORT = 8285


def keyless(host):
    """Give *host* neither a key file nor a public key."""
    host.key_path.unlink()
    host.settings["public_key"] = None
    return host


def send_raw(node, payload, to, *, source=None, port=PORT):
    """Send one UDP datagram from *node*, from the address *source*."""
    with node.namespace.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.bind((source or "0.0.0.0", 0))
        udp.sendto(payload, (to, port))


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def clear(request, module_lab, tmp_path_factory):
    """Paris and Tokyo, unencrypted, each with a container; neither has a key."""
    network = Network(module_lab, tmp_path_factory.mktemp("clear"), encapsulation="udp")
    hosts = [keyless(network.host(name)) for name in ("paris", "tokyo")]
    if request.param == "IPv6":
        for host in hosts:
            host.settings["endpoint"] = f"[{host.outside6}]"
    network.web, network.shop = hosts[0].container("web"), hosts[1].container("shop")
    network.start()
    yield network
    network.close()


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_containers_and_hosts_reach_each_other_in_the_clear(clear, inner):
    paris, tokyo = clear.peers.values()
    for one, other in ((clear.web, clear.shop), (clear.shop, clear.web), (paris, tokyo), (clear.web, tokyo)):
        one.ping(getattr(other, inner), 3)


@pytest.mark.parametrize("inner", ["address", "address6"])
@pytest.mark.parametrize("size", [0, 1, 1400, 8000, 60000])
def test_pings_of_any_size_are_answered_in_the_clear(clear, inner, size):
    ping(clear.web.namespace, getattr(clear.shop, inner), 2, "-s", str(size))


@pytest.mark.parametrize("inner", ["address", "address6"])
def test_tcp_transfers_arrive_unchanged_both_ways_in_the_clear(clear, inner):
    transfer_both_ways(clear.web.namespace, clear.shop.namespace, getattr(clear.shop, inner), 4 << 20)
    drops = [host.drops() for host in clear.peers.values()]
    assert not any("source" in each or "outer_source" in each for each in drops)


def test_no_port_of_the_encrypted_encapsulation_is_open(clear):
    paris = clear.peers["paris"]

    listening = paris.namespace.run("ss", "-lunH")

    assert f":{PORT} " in listening
    assert ":51820 " not in listening


def test_status_and_log_say_that_nothing_is_encrypted_and_the_mtu_is_that_of_bare_packets(clear, request):
    paris, tokyo = clear.peers.values()
    status = paris.status()

    peer = paris.peer(tokyo)
    assert (peer["state"], peer["encapsulation"], peer["is_encrypted"]) == ("unencrypted", "udp", False)
    assert status["public_key"] is None
    assert any("traffic with tokyo is not encrypted" in note for note in status["notes"])
    assert "traffic with tokyo is not encrypted" in paris.log
    assert status["mtu"] == 1500 - (48 if "IPv6" in request.node.callspec.id else 28)


def test_wire_shows_bare_packets(clear, request):
    paris, tokyo = clear.peers.values()
    with paris.namespace.entered():
        sniffer = paris.namespace.sniff("eth0")

    paris.ping(tokyo.address)

    outer = 40 + 8 if "IPv6" in request.node.callspec.id else 20 + 8
    payloads = [frame[14 + outer :] for frame in sniffer.frames()]
    ends = (socket.inet_aton(paris.address), socket.inet_aton(tokyo.address))
    assert any(payload[:1] == b"\x45" and (payload[12:16], payload[16:20]) == ends for payload in payloads)


@pytest.fixture
def mixed(lab, tmp_path):
    """Paris and Tokyo are encrypted; Rome and all tunnels to it are unencrypted."""
    network = Network(lab, tmp_path)
    network.host("paris")
    network.host("tokyo")
    keyless(network.host("rome", encapsulation="udp"))
    network.start()
    yield network
    network.close()


def test_a_mixed_network_has_each_tunnel_as_it_is_configured(mixed):
    paris, tokyo, rome = mixed.peers.values()

    for one in mixed.peers.values():
        for other in mixed.peers.values():
            if one is not other:
                one.ping(other.address, 2)
                one.ping(other.address6, 2)
    transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 2 << 20)
    transfer_both_ways(paris.namespace, rome.namespace, rome.address, 2 << 20)

    assert [paris.peer(each)["encapsulation"] for each in (tokyo, rome)] == ["wireguard", "udp"]
    paris.wait_up(tokyo)
    assert paris.status()["mtu"] == 1420
    assert rome.status()["mtu"] == 1472


def test_a_packet_of_an_encrypted_peer_is_not_taken_in_the_clear(mixed):
    paris, tokyo, rome = mixed.peers.values()
    echo = packets.udp(b"forged", source=tokyo.address, destination=paris.address)

    send_raw(tokyo, echo, paris.outside)
    wait_until(
        lambda: paris.drops().get("outer_source"), PATIENCE, "a datagram of an encrypted peer to be dropped"
    )
    send_raw(rome, echo, paris.outside)
    wait_until(lambda: paris.drops(rome).get("source"), PATIENCE, "a forged inner source to be dropped")

    assert not paris.faults(tokyo)


def test_a_peer_that_becomes_encrypted_by_reload_is_so_at_once(mixed):
    paris, tokyo, rome = mixed.peers.values()
    paris.ping(rome.address)
    rome.key_path.write_text(rome.private_key.to_base64() + "\n")
    rome.key_path.chmod(0o600)
    rome.settings |= {"encapsulation": None, "public_key": rome.public_key}
    rome.stop()

    for host in mixed.peers.values():
        host.write()
    for host in (paris, tokyo):
        host.reload()
    rome.start()

    paris.ping(rome.address, 2)
    paris.wait_up(rome)
    assert not any("not encrypted" in note for note in paris.status()["notes"])
    send_raw(rome, packets.udp(b"late", source=rome.address, destination=paris.address), paris.outside)
    assert paris.peer(rome)["is_encrypted"]


class Flannel(Node):
    """A node that runs the independent implementation."""

    def start(self, *others):
        routes = [f"10.244.{other.number}.0/24={other.outside}" for other in others]
        command = [sys.executable, FLANNEL, str(PORT), f"{self.address}/32", *routes]
        self.process = self.namespace.popen(*command, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "ready\n"


@pytest.fixture
def flannel(lab, tmp_path):
    """Paris runs our agent, Tokyo the independent implementation; each has a container."""
    network = Network(lab, tmp_path)
    paris = network.host("paris")
    tokyo = network._plug(Flannel(network, "tokyo", 2, "flannel0", {}))
    tokyo.settings |= {"public_key": None, "encapsulation": "udp", "subnets": ["10.244.2.0/24"]}
    network.web, network.shop = paris.container("web"), tokyo.container("shop", mtu=1472)
    network.start()
    tokyo.start(paris)
    yield network
    network.close()


def test_flannel_and_ours_carry_pings_and_tcp_between_their_containers(flannel):
    web, shop = flannel.web, flannel.shop

    web.ping(shop.address, 3)
    shop.ping(web.address, 3)
    ping(web.namespace, shop.address, 2, "-s", "8000")
    transfer_both_ways(web.namespace, shop.namespace, shop.address, 4 << 20)

    assert flannel.peers["paris"].status()["mtu"] == 1472


def test_foreign_addresses_outside_and_inside_are_refused(flannel):
    paris, tokyo = flannel.peers.values()
    tokyo.namespace.run("ip", "address", "add", "192.0.2.66/24", "dev", "eth0")
    genuine = packets.udp(b"x", source=tokyo.address, destination=paris.address)
    spoofed = packets.udp(b"x", source="10.9.9.9", destination=paris.address)

    send_raw(tokyo, genuine, paris.outside, source="192.0.2.66")
    wait_until(lambda: paris.drops().get("outer_source"), PATIENCE, "a foreign outer source to be dropped")
    send_raw(tokyo, spoofed, paris.outside, source=tokyo.outside)
    wait_until(lambda: paris.drops(tokyo).get("source"), PATIENCE, "a spoofed inner source to be dropped")
    send_raw(tokyo, b"\0 no packet", paris.outside, source=tokyo.outside)
    wait_until(lambda: paris.drops(tokyo).get("inner_version"), PATIENCE, "what is no packet to be dropped")

    before = paris.peer(tokyo)["rx_packets"]
    send_raw(tokyo, genuine, paris.outside, source=tokyo.outside)
    wait_until(lambda: paris.peer(tokyo)["rx_packets"] > before, PATIENCE, "a genuine packet to be taken")
    assert paris.peer(tokyo)["endpoint"] == f"{tokyo.outside}:{PORT}"


def test_sources_let_clients_of_a_director_in(flannel):
    paris, tokyo = flannel.peers.values()
    tokyo.settings["sources"] = ["0.0.0.0/0"]
    paris.write()
    paris.reload()
    before = paris.peer(tokyo)["rx_packets"]

    send_raw(tokyo, packets.udp(b"x", source="198.51.100.9", destination=paris.address), paris.outside)
    wait_until(lambda: paris.peer(tokyo)["rx_packets"] > before, PATIENCE, "a client's packet to be taken")
    own = packets.udp(b"x", source=paris.address, destination=paris.address)
    send_raw(tokyo, own, paris.outside)
    wait_until(
        lambda: paris.drops(tokyo).get("source"), PATIENCE, "a packet from our own address to be dropped"
    )


def test_check_names_who_is_not_encrypted(flannel):
    paris, tokyo = flannel.peers.values()
    tokyo.settings["endpoint"] = "8.8.8.8"
    paris.write()

    done = paris.overlay("check", "--peers", str(paris.peers_path), "--key", str(paris.key_path), "--json")

    warnings = json.loads(done.stdout)["warnings"]
    assert any("traffic with peers.tokyo is not encrypted" in each for each in warnings)
    assert any("8.8.8.8 is a public address" in each for each in warnings)
