"""All encapsulations side by side: as other programs read them on the wire, in one cluster, and
changed under traffic.
"""

from __future__ import annotations

import itertools
import socket
import threading

import pytest

from overlay.encap import ENCAPSULATIONS
from tests.netns.network import Network, pinging, transfer_both_ways
from tests.netns.topology import PATIENCE, Lab, wait_until
from tests.netns.tshark import dissect

CLEAR = [name for name, each in ENCAPSULATIONS.items() if not each.is_encrypted]
# tshark's names of the layers outside the inner packet; the bare packet in UDP has no port that it recognizes.
LAYERS = {
    "udp": "udp:ip",
    "ipip": "ip",
    "gre": "gre:ip",
    "vxlan": "udp:vxlan:eth:ethertype:ip",
    "geneve": "udp:geneve:eth:ethertype:ip",
    "wireguard": "udp:wg",
}
DECODE = {"udp": ("-d", "udp.port==8285,ip"), "vxlan": ("-d", "udp.port==4789,vxlan")}


def cluster(lab, tmp_path, names, **settings):
    network = Network(lab, tmp_path, **settings)
    for name, encapsulation in names.items():
        network.host(name, encapsulation=encapsulation)
    network.start()
    return network


KINDS = [(name, outer) for name in ENCAPSULATIONS for outer in (4, 6)]


def capture(lab, directory, name, outer):
    """Return the frames of pings and TCP between two hosts."""
    extra = {"gre_key": 7} if name == "gre" else {}
    network = Network(lab, directory, encapsulation=name, offloads=False, **extra)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    if outer == 6:
        for host in (paris, tokyo):
            host.settings["endpoint"] = (
                f"[{host.outside6}]" if ENCAPSULATIONS[name].has_ports else host.outside6
            )
    network.start()
    paris.ping(tokyo.address)
    sniffer = tokyo.namespace.sniff("eth0")

    paris.ping(tokyo.address, 2)
    paris.ping(tokyo.address6, 2)
    transfer_both_ways(paris.namespace, tokyo.namespace, tokyo.address, 1 << 16)
    network.close()
    return sniffer.frames()


@pytest.fixture(scope="module")
def dissected(_requirements, tmp_path_factory):
    """What tshark, which takes long to start, says of the frames of each of KINDS."""
    if _requirements:
        pytest.skip(_requirements)
    captures = {}
    for kind in KINDS:
        with Lab() as lab:
            captures[kind] = capture(lab, tmp_path_factory.mktemp("capture"), *kind)
    options = [word for words in DECODE.values() for word in words]
    rows = iter(dissect(itertools.chain(*captures.values()), tmp_path_factory.mktemp("tshark"), *options))
    return {kind: list(itertools.islice(rows, len(frames))) for kind, frames in captures.items()}


@pytest.mark.parametrize(("name", "outer"), KINDS)
def test_a_capture_is_what_tshark_knows_by_the_name_and_nothing_in_it_is_malformed(dissected, name, outer):
    outside = "ipv6" if outer == 6 else "ip"
    rows = dissected[name, outer]
    chains = [row["frame.protocols"][0] for row in rows]
    if name == "wireguard":
        expected = [f"eth:ethertype:{outside}:udp:wg"]
    else:
        before = f"eth:ethertype:{outside}:{LAYERS[name]}"
        # Its dissector of udp first assumes IPv4
        before6 = f"{before}:" if name == "udp" else before.removesuffix("ip")
        expected = [f"{before}:icmp:data", f"{before}:tcp", f"{before6}ipv6:icmpv6:data"]
    for chain in expected:
        assert any(each.startswith(chain) for each in chains), chains
    assert not [row for row in rows if "_ws.malformed" in row]
    # 0 means a wrong checksum; ICMP, TCP and IP of every layer are checked.
    assert not [
        row
        for row in rows
        if "0" in (*row.get("ip.checksum.status", ()), *row.get("tcp.checksum.status", ()))
    ]


def reach_each_other(network):
    hosts = list(network.peers.values())
    for one in hosts:
        for other in hosts:
            if one is not other:
                one.ping(other.address, 2)
                one.ping(other.address6, 2)


@pytest.mark.skipif("ipip" not in ENCAPSULATIONS, reason="ipip is not built")
def test_a_cluster_of_three_has_three_encapsulations_and_each_host_reaches_each(lab, tmp_path):
    network = cluster(lab, tmp_path, {"paris": None, "tokyo": "udp", "rome": "ipip"})
    paris, tokyo, rome = network.peers.values()

    reach_each_other(network)
    for one, other in ((paris, tokyo), (paris, rome), (tokyo, rome)):
        transfer_both_ways(one.namespace, other.namespace, other.address, 1 << 20)

    found = {
        (one.name, other.name): one.peer(other)["encapsulation"]
        for one in (paris, tokyo, rome)
        for other in (paris, tokyo, rome)
        if one is not other
    }
    for ends, encapsulation in {
        ("paris", "tokyo"): "udp", ("paris", "rome"): "ipip", ("tokyo", "rome"): "wireguard"
    }.items():  # fmt: skip
        assert found[ends] == found[ends[::-1]] == encapsulation
    network.close()


def test_encapsulations_change_one_after_the_other_by_reload_under_a_transfer(lab, tmp_path):
    """A TCP connection that starts with the first encapsulation survives all others, to the last byte."""
    network = cluster(lab, tmp_path, {"paris": None, "tokyo": None})
    paris, tokyo = network.peers.values()
    paris.ping(tokyo.address)
    with pinging(paris.namespace, tokyo.address, tmp_path) as pinger:
        with slow_transfer(paris, tokyo) as transfer:
            for name in [*CLEAR, "wireguard"]:
                network.settings["encapsulation"] = name
                network.settings["gre_key"] = 9 if name == "gre" else None
                assert "reloaded" in paris.reload()
                assert "reloaded" in tokyo.reload()
                assert paris.peer(tokyo)["encapsulation"] == name
                transfer.wait_for_more(f"the transfer to go on by {name}")
                pinger.go_on()
        assert transfer.received == transfer.sent
    network.close()


class slow_transfer:  # noqa: N801  a context manager that reads as a verb
    """Send bytes from one host to another over TCP, a few at a time, until the block ends; then wait for the rest."""

    def __init__(self, sender, receiver):
        with receiver.namespace.entered():
            self._listener = socket.create_server((receiver.address, 0))
        with sender.namespace.entered():
            self._out = socket.create_connection(self._listener.getsockname(), timeout=60)
        self._in, _ = self._listener.accept()
        self._in.settimeout(60)
        self.sent = self.received = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        for thread in self._threads:
            thread.join()
        for each in (self._out, self._in, self._listener):
            each.close()

    def wait_for_more(self, what):
        before = self.received
        wait_until(lambda: self.received > before, PATIENCE, what)

    def _send(self):
        while not self._ends.wait(0.02):
            self.sent += self._out.send(bytes(2000))
        self._out.shutdown(socket.SHUT_WR)

    def _receive(self):
        while data := self._in.recv(1 << 16):
            self.received += len(data)
