from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.forwarding.peer import Peer
from overlay.forwarding.services.balancer import Balancer
from overlay.forwarding.services.search import search
from overlay.forwarding.services.server import ServerRow
from overlay.forwarding.services.settings import Settings
from overlay.link.service_messages import FlowFilter
from tests import packets

VIPS = {4: "192.0.2.100", 6: "2001:db8::100"}
CLIENTS = {4: "198.51.100.{}", 6: "2001:db8:1::{}"}
WEB = 1


class World:
    """A balancer, its answers, and peers whose numbers are those of the servers."""

    def __init__(self):
        self.written = []
        self.resent = []
        self.jobs = []
        self.peers = {number: Peer(number + 1) for number in range(10)}
        self.balancer = Balancer(self.write, self.resent.extend, self.jobs.append)
        self.vips = {version: ip_address(text).packed for version, text in VIPS.items()}

    def write(self, parts):
        head, packet = parts
        assert head == packets.PLAIN
        self.written.append(packet)

    def work(self):
        """Do all jobs to their end."""
        while self.jobs:
            for _ in self.jobs.pop(0):
                pass

    def serve(self, number=WEB, *, ports=((80, 80),), protocols=(6, 17), addresses=None, **settings):
        chosen = self.vips.values() if addresses is None else addresses
        self.balancer.set_service(number, "web", Settings(**settings), chosen, protocols, ports)

    def row(self, number, **more):
        return ServerRow(number, f"web{number}:0", self.peers[number], **more)

    def servers(self, *numbers, service=WEB, sorry=None, is_sorry=False, elsewhere=()):
        made = [number if isinstance(number, ServerRow) else self.row(number) for number in numbers]
        self.balancer.set_servers(service, made, sorry, is_sorry=is_sorry, elsewhere=elsewhere)
        self.work()

    def send(self, packet, now=0.0, count=1, total=-1):
        """Return the number of the server that *packet* goes to; None for none."""
        self.last = memoryview(bytearray(packet))
        version = packet[0] >> 4
        peer = self.balancer.vip(self.vips[version]).choose(self.last, now, count, total)
        return None if peer is None else peer.number - 1

    def flows(self, now=0.0, number=WEB, **wanted):
        """Return the flows of a service that are wanted, those of the server that has number N with number N."""
        service = self.balancer.service(number)
        numbers = {server.index: number for number, server in service.by_number.items()}
        found, at = [], 0
        while at is not None:
            steps = list(search(service.flows, FlowFilter(**wanted), numbers, at, 10**6, now))
            found += [row for rows, _, _ in steps for row in rows]
            at = steps[-1][2]
        return found

    def service(self, number=WEB):
        return self.balancer.service(number)

    def count(self, server, number=WEB):
        return next(row for row in self.balancer.counters(number) if row.number == server)


@pytest.fixture
def world():
    made = World()
    made.serve()
    made.servers(0, 1, 2)
    return made


def tcp(client=1, port=5000, flags=packets.ACK, to=80, version=4, payload=b"", **more):
    ends = {"source": CLIENTS[version].format(client), "destination": VIPS[version]}
    return packets.tcp(payload, version=version, ports=(port, to), flags=flags, **(ends | more))


def udp(client=1, port=5000, to=80, version=4, payload=b"question and more", **more):
    ends = {"source": CLIENTS[version].format(client), "destination": VIPS[version]}
    return packets.udp(payload, version=version, ports=(port, to), **(ends | more))


def flags_of(packet):
    return packet[packets.l4_start(packet) + 13]
