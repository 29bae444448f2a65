"""Two directors and a server: connections of one director continue at the other."""

from __future__ import annotations

import socket
import zlib
from ipaddress import ip_address

import pytest

from overlay.forwarding.services.server import Takes
from overlay.link.messages import CONTROL_AT_ONCE, CONTROL_PER_SECOND, OWN, ControlReceived, Routes
from overlay.link.service_messages import (
    VIRTUAL,
    AskServices,
    ServerRow,
    ServiceCounters,
    SetServers,
    SetService,
)
from overlay.supervision.policing import Policing
from overlay.wire import control
from overlay.wire.bulk import AES_256_GCM
from overlay.wire.control import Presence
from overlay.wire.service_control import FlowsTold, SyncedFlow
from tests import packets
from tests.packets import ACK, SYN
from tests.sim import World

VIP = ip_address("203.0.113.80")
CLIENT = "198.51.100.7"
TCP = socket.IPPROTO_TCP
SERVERS = ("web1:0", "web2:0")


class Directors:
    """Nodes a and b that direct a service, c that does not, and two servers, which are c and a host behind b or a."""

    def __init__(self, scheduler="rr"):
        self.world = World(ciphers=[AES_256_GCM])
        self.scheduler = scheduler
        self.a, self.b, self.c = (self.world.node(name) for name in "abc")
        for one in (self.a, self.b, self.c):
            for other in (self.a, self.b, self.c):
                if other is not one:
                    one.know(other)
        for each in (self.a, self.b):
            self.serve(each)
        for one, other in ((self.a, self.b), (self.a, self.c), (self.b, self.c)):
            one.send(other)
        self.world.run(2)
        for node in (self.a, self.b, self.c):
            node.received.clear()

    def serve(self, node):
        node.tell(
            SetService(
                0, "web", [VIP.packed], [TCP], [(80, 80)], self.scheduler, 0.0, 32, 128, False,
                [900.0, 120.0, 300.0], [50_000, 1_000_000, 65_536], [1],
            )
        )  # fmt: skip
        # One server is this node itself, the other is c, so that the choice is visible.
        node.tell(SetServers(0, [ServerRow(0, "web1:0", OWN, 1, 0), ServerRow(1, "web2:0", 2, 1, 0)]))
        node.tell(Routes([(VIP.packed, 32, VIRTUAL)], [], True))

    def connect(self, node, ports):
        """Establish connections, and return those that went to the server that is the node itself."""
        for port in ports:
            self.send(node, port, SYN)
            self.send(node, port, ACK)
        self.world.run(1)
        return self.own(node)

    def own(self, node):
        ports = {int.from_bytes(packet[20:22], "big") for packet in node.received}
        node.received.clear()
        return ports

    def send(self, node, port, flags):
        packet = packets.tcp(b"", ports=(port, 80), flags=flags, source=CLIENT, destination=str(VIP))
        node.tun.outgoing.append(packets.PLAIN + packet)


@pytest.fixture
def directors():
    return Directors()


def test_connections_go_on_at_the_other_director_where_they_were(directors):
    ports = range(40000, 40100)
    own = directors.connect(directors.a, ports)
    assert len(own) == 50
    for port in ports:
        directors.send(directors.b, port, ACK)
    directors.world.run(1)

    assert directors.own(directors.b) == own
    assert directors.b.drops["control_foreign"] == directors.b.drops["service_unknown"] == 0


def test_connections_at_a_drained_server_go_on_at_the_other_director():
    directors = Directors("maglev")
    ports = range(40000, 40100)
    own = directors.connect(directors.a, ports)
    assert 20 < len(own) < 80
    for node in (directors.a, directors.b):
        node.tell(
            SetServers(
                0, [ServerRow(0, "web1:0", OWN, 0, Takes.KEPT), ServerRow(1, "web2:0", 2, 1, Takes.NEW)]
            )
        )
    directors.world.run(1)
    assert directors.connect(directors.b, range(41000, 41020)) == set()
    for port in ports:
        directors.send(directors.b, port, ACK)
    directors.world.run(1)

    assert directors.own(directors.b) == own


def test_forwarder_that_was_started_anew_is_told_the_connections(directors):
    ports = range(40000, 40100)
    own = directors.connect(directors.a, ports)
    directors.a.restart()
    directors.serve(directors.a)
    directors.world.run(2)
    directors.a.send(directors.b)
    directors.world.run(3)
    directors.a.received.clear()
    for port in ports:
        directors.send(directors.a, port, ACK)
    directors.world.run(1)

    assert directors.own(directors.a) == own


def told_by(node, peer, told):
    keypair = node.peer(peer).keypairs.current
    node.core.outbound.send_payload(node.peer(peer), keypair, control.build(told))


def test_peer_that_is_not_a_director_is_ignored(directors):
    row = SyncedFlow(6, 2, 0, zlib.crc32(b"web1:0"), ip_address(CLIENT).packed, 40000, VIP.packed, 80)
    told_by(directors.c, 1, FlowsTold(zlib.crc32(b"web"), (row,)))
    directors.world.run(1)
    directors.send(directors.a, 40000, ACK)
    directors.world.run(1)

    assert directors.a.drops["control_foreign"] == 1
    assert directors.own(directors.a) == {80}  # a reset from the port of the service
    directors.a.tell(AskServices(1))
    directors.world.run(1)
    told = [each for each in directors.a.reported if isinstance(each, ServiceCounters)]
    assert [row.active for row in told[-1].servers] == [0, 0]


@pytest.mark.slow
def test_peer_that_floods_messages_for_the_agent_does_not_get_the_forwarder_ended(directors):
    a, c, world = directors.a, directors.c, directors.world
    a.reported.clear()
    policing, began = Policing(lambda _: False), world.clock.now
    for _ in range(300):
        for _ in range(140):
            told_by(c, 1, Presence(7, True))
        world.run(0.1)
        for report in a.reported:
            assert policing.allows(report, 2, world.clock.now)
        passed_on = [each for each in a.reported if isinstance(each, ControlReceived)]
        a.reported.clear()
        assert len(passed_on) <= CONTROL_AT_ONCE
    seconds = world.clock.now - began
    assert a.drops["control_rate"] >= 300 * 140 - CONTROL_AT_ONCE - seconds * CONTROL_PER_SECOND - 1
