"""To whom errors of the underlay are passed on."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from overlay.balancing.returned_packets import ReturnedPackets
from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.link.messages import TellSender
from peers import toml
from tests import packets
from tests.peers.examples import key_text

OWN, PLAIN, OTHER = "192.0.2.1", "198.51.100.9", "198.51.100.10"
FILE = f"""
[network]
prefix = ["10.244.0.0/16", "fd00:244::/32"]
{{network}}
[peers.lb]
public_key = "{key_text("lb")}"
address = "10.244.0.1"

[peers.plain]
encapsulation = "{{encapsulation}}"
endpoint = "{PLAIN}"
address = "10.244.0.22"

[peers.sealed]
public_key = "{key_text("sealed")}"
endpoint = "{OTHER}"
address = "10.244.0.23"

[services.web]
address = ["203.0.113.80", "2001:db8::80"]
ports = [80]
directors = ["lb"]
servers = ["plain"]
"""


class Bench:
    def __init__(self, encapsulation="ipip", network=""):
        table = toml.parse(FILE.format(encapsulation=encapsulation, network=network), Path("peers.toml"))
        self.node = Node(PrivateKey(bytes(32)), table, table.peers["lb"], {})
        self.remotes = {
            number: SimpleNamespace(number=number, peer=table.peers[name], endpoint=(endpoint, 0))
            for number, (name, endpoint) in enumerate({"plain": PLAIN, "sealed": OTHER}.items(), 1)
        }
        owners = {ip_address("10.244.0.22"): 1, ip_address("10.244.0.23"): 2, ip_address("10.244.0.1"): 0}
        roster = SimpleNamespace(by_number=self.remotes, owner=owners.get)
        self.told = []
        self.returned = ReturnedPackets(lambda: self.node, roster, self.tell)

    async def tell(self, command):
        self.told.append(command)

    def inside(self, packet, *, before=b"", protocol=4, to=PLAIN, code=1):
        outer = packets.ipv4(before + packet, protocol=protocol, source=OWN, destination=to)
        message = bytes([3, code, 0, 0, 0, 0, 0, 0]) + outer
        return self.returned.inside(
            packets.ipv4(message, protocol=1, source="198.51.100.1", destination=OWN), socket.AF_INET
        )


def to(destination, version=4):
    source = "192.0.2.200" if version == 4 else "2001:db8:7::7"
    return packets.tcp(b"x" * 600, version=version, source=source, destination=destination)


@pytest.mark.parametrize(
    ("destination", "version"), [("203.0.113.80", 4), ("2001:db8::80", 6), ("10.244.0.22", 4)]
)
def test_packet_to_a_service_or_to_what_is_behind_the_peer_is_found(destination, version):
    packet = to(destination, version)
    assert Bench().inside(packet, protocol=4 if version == 4 else 41) == packet[:576]


@pytest.mark.parametrize(
    ("encapsulation", "network", "protocol", "headers"),
    [
        ("gre", "", 47, 4),
        ("gre", "gre_key = 7", 47, 8),
        ("udp", "", 17, 8),
        ("vxlan", "", 17, 8 + 8 + 14),
        ("geneve", "", 17, 8 + 8 + 14),
    ],
)
def test_headers_of_each_encapsulation_are_passed_over(encapsulation, network, protocol, headers):
    packet = to("203.0.113.80")
    assert (
        Bench(encapsulation, network).inside(packet, before=bytes(headers), protocol=protocol) == packet[:576]
    )


def test_what_is_forged_or_of_others_or_too_short_is_not_passed_on():
    bench = Bench()
    packet = to("203.0.113.80")
    assert bench.inside(packet, to=OTHER) is None  # that tunnel is encrypted
    assert bench.inside(packet, to="198.51.100.77") is None
    assert bench.inside(packet, protocol=47) is None
    assert bench.inside(packet, code=4) is None  # the kernel reports the path MTU
    assert bench.inside(to("10.244.0.23")) is None  # behind another peer
    assert bench.inside(to("192.0.2.77")) is None
    assert bench.inside(to("10.244.0.1")) is None  # this node itself
    assert bench.inside(packet[:27]) is None
    assert bench.inside(b"") is None
    bench.remotes[1].endpoint = None
    assert bench.inside(packet) is None


def test_errors_that_come_are_told_to_the_forwarder_and_a_flood_is_not():
    async def main():
        bench = Bench()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        opened = SimpleNamespace(family=socket.AF_INET, fileno=near.fileno, recv=near.recv, close=near.close)
        bench.returned = ReturnedPackets(
            lambda: bench.node, bench.returned._roster, bench.tell, lambda: [opened]
        )
        packet = to("203.0.113.80")
        outer = packets.ipv4(packet, protocol=4, source=OWN, destination=PLAIN)
        message = packets.ipv4(
            bytes([3, 1, 0, 0, 0, 0, 0, 0]) + outer, protocol=1, source=OTHER, destination=OWN
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.returned.run)
            far.send(b"garbage")
            far.send(message)
            with trio.fail_after(60):
                while not bench.told:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        far.close()
        assert bench.told == [TellSender(packet[:576])]
        assert near.fileno() == -1

    trio.run(main)


def test_node_opens_nothing_until_it_has_tunnels_in_the_clear():
    async def main():
        bench = Bench()
        clear, bench.node = bench.node, SimpleNamespace(tunnels={})
        asked = []
        made = ReturnedPackets(lambda: bench.node, None, bench.tell, lambda: asked.append(1) or [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            await trio.sleep(60)
            made.wake()
            await trio.sleep(60)
            assert asked == []
            bench.node = clear
            made.wake()
            await trio.sleep(60)
            assert asked == [1]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
