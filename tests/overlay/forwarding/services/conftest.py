from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.services.balancer import Balancer
from overlay.forwarding.services.search import search
from overlay.forwarding.services.server import ServerSettings
from overlay.forwarding.services.settings import ServiceSettings
from overlay.link.service_messages import FlowFilter
from tests import packets

VIPS = {4: "192.0.2.100", 6: "2001:db8::100"}
CLIENTS = {4: "198.51.100.{}", 6: "2001:db8:1::{}"}
WEB = 1


class World:
    """A balancer, its answers, and peers with the numbers of the servers."""

    def __init__(self):
        self.written = []
        self.resent = []
        self.jobs = []
        self.peers = {number: LivePeer(number + 1) for number in range(10)}
        self.balancer = Balancer(self.write, self.resent.extend, self.jobs.append)
        self.vips = {version: ip_address(text).packed for version, text in VIPS.items()}

    def write(self, parts):
        head, packet = parts
        assert head == packets.PLAIN
        self.written.append(packet)

    def work(self):
        """Finish all jobs."""
        while self.jobs:
            for _ in self.jobs.pop(0):
                pass

    def serve(self, number=WEB, *, ports=((80, 80),), protocols=(6, 17), addresses=None, **settings):
        chosen = self.vips.values() if addresses is None else addresses
        self.balancer.set_service(number, "web", ServiceSettings(**settings), chosen, protocols, ports)

    def row(self, number, **more):
        return ServerSettings(number, f"web{number}:0", self.peers[number], **more)

    def servers(self, *numbers, service=WEB, sorry=None, is_sorry=False, elsewhere=()):
        made = [number if isinstance(number, ServerSettings) else self.row(number) for number in numbers]
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


def established(world, now=0.0, **flow):
    """Establish a flow and return the number of its server."""
    number = world.send(tcp(flags=packets.SYN, **flow), now)
    assert number == world.send(tcp(flags=packets.ACK, **flow), now)
    return number


def cut(packet, sizes):
    """Return IPv4 *packet* in fragments of *sizes* bytes, each but the last divided by 8."""
    header, data, offset, pieces = packet[:20], packet[20:], 0, []
    for size in sizes:
        part, data = data[:size], data[size:]
        flags = (0x2000 if data else 0) | offset // 8
        head = (
            header[:2]
            + struct.pack("!H", 20 + len(part))
            + header[4:6]
            + struct.pack("!H", flags)
            + header[8:]
        )
        pieces.append(packets.with_ip_checksum(head + part))
        offset += size
    return pieces


def cut6(packet, sizes, number):
    header, data, offset, pieces = packet[:40], packet[40:], 0, []
    for size in sizes:
        part, data = data[:size], data[size:]
        extension = bytes([packet[6], 0]) + struct.pack("!HI", offset | bool(data), number)
        pieces.append(packets.with_total_length(header[:6] + b"\x2c" + header[7:] + extension + part))
        offset += size
    return pieces


def fragments_of(version, port):
    sizes = [1400, 1400, 2000]
    if version == 6:
        return cut6(udp(payload=bytes(3000), port=port, version=6), sizes, port)
    return cut(udp(payload=bytes(3000), port=port, fragment=0, identifier=port), sizes)


def error(quoted, version, head=None):
    head = head or (bytes([3, 4, 0, 0, 0, 0, 5, 20]) if version == 4 else bytes([2, 0, 0, 0, 0, 0, 5, 20]))
    build, protocol = (packets.ipv4, 1) if version == 4 else (packets.ipv6, 58)
    return build(
        head + quoted, protocol=protocol, source=CLIENTS[version].format(99), destination=VIPS[version]
    )


def answer_of(packet):
    """Return what a server sent back to a client for *packet*, as far as an ICMP error shows it."""
    version, at = packet[0] >> 4, packets.l4_start(packet)
    ports = packet[at + 2 : at + 4] + packet[at : at + 2] + bytes(4)
    ends = {"source": VIPS[version], "destination": CLIENTS[version].format(1)}
    build = packets.ipv4 if version == 4 else packets.ipv6
    return build(ports, protocol=packet[9 if version == 4 else 6], **ends)
