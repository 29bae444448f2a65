"""Whole nodes in memory: the network, the clock, chance, the tun and the link between agent and forwarder are
simulated.

A story has three lines::

    sent = a.send(b)
    world.run(1)
    assert b.received == sent

Engine and Core are the real ones, connected as by the agent: reports of the core go to the engine, its requests go back
as commands, and everything crosses overlay.link as bytes.  ``world.trace`` records what happened to each datagram.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import socket
from collections import Counter, deque
from ipaddress import ip_address, ip_network

from overlay.crypto.keys import PrivateKey
from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends, Role
from overlay.engine import Engine, LookUp, Relocated, SessionReport
from overlay.forwarding import native
from overlay.forwarding.commands import Commands
from overlay.forwarding.core import Core
from overlay.forwarding.lanes import Lane
from overlay.forwarding.underlay.batching import Batching
from overlay.forwarding.underlay.flows import hash_flow
from overlay.link import codec
from overlay.link import messages as link
from overlay.records.journal import Journal
from overlay.roster import Prospect, Remote, RosterChange
from overlay.session.constants import Timing
from overlay.session.outputs import GiveUp
from peers.mac import derived_mac
from peers.peer import Peer
from tests import packets
from tests.network import FakePathSocket, FakeQueues, FakeRaw, FakeSocket, FakeTap, FakeTun, Network
from tests.overlay.session.pair import Clock, seeded

PORT, CLEAR_PORT = 51820, 8285
SENDERS_PORT = 50000  # the first of those that only send
LANE_PORTS = 60000  # the source port of a lane is this plus its number
VNI = 7
MOMENT = 1e-6  # seconds between two actions of an agent
TUN = 3  # its descriptor; those of sockets follow
QUEUES = 100_000  # and those of further queues


class Raw:
    """A descriptor, as the compiled path knows it: it stands for the current socket."""

    def __init__(self, udp):
        self._udp = udp

    def sendmsg(self, *arguments):
        return self._udp.raw.sendmsg(*arguments)

    def recvmsg_into(self, *arguments):
        return self._udp.raw.recvmsg_into(*arguments)

    @property
    def arrived(self):
        return self._udp.raw.arrived

    def send_many(self, packets, address, tos, ttl):
        return self._udp.raw.send(
            [memoryview(each) for each in packets], len(packets[0]), tos | ttl << 8, address
        )

    def receive_many(self, count):
        return self._udp.raw.receive_many(count)


@functools.cache
def first_of(subnet):
    """Return the first address of *subnet* that a host may have."""
    return str(ip_network(subnet)[1])


class Node:
    """One host: its agent's half, its forwarder's half, and a tun whose other end is the test."""

    def __init__(self, world, name, number):
        self.world, self.name, self.number = world, name, number
        self.key = PrivateKey.generate(seeded(f"key of {name}"))
        self.addresses = [f"192.0.2.{number}", f"2001:db8::{number:x}"]
        self.subnets = [f"10.244.{number}.0/24", f"fd00:244:{number:x}::/64"]
        self.port, self.has_gro, self.has_segments = PORT, world.has_gro, True
        self.mtu = 1404 if world.is_tap else 1420
        self.mac = bytes([2, 0, 0, 0, 0, number])  # of the host itself, where the device is a tap
        self.inherits_ttl = False
        self.stations = {}  # number of the peer: (static Ethernet addresses, IP addresses) of the peers file
        self.gro_count = 64  # datagrams in one receive at most
        self.device_mtu = (
            math.inf
        )  # of its underlay: larger datagrams leave it in fragments, and probes not at all
        self.ciphers, self.joins_udp = list(world.ciphers), True
        self.tun = FakeTap() if world.is_tap else FakeTun()
        # This host's packets are put into the queue of a lane by their flow, as by the kernel
        self.queues = [self.tun, *(FakeTun() for _ in range(1, world.lanes))]
        self.lane_of = lambda packet: hash_flow(memoryview(packet)) % len(self.queues)
        self.known_mtus = {}  # by underlay address: what the kernel has learnt about the path there
        self.known = {}  # number of the peer: (public key, preshared key, keepalive, endpoint, subnets)
        self.sockets, self.clear_sockets, self.raw_sockets = [], [], {}
        self.log = []  # (time, what the engine requested or told its journal)
        self.reported = []
        self.is_agent_busy, self.link_size = False, math.inf
        self.steps = math.inf  # of what is due, and of what concerns all peers, in one turn
        self.link_has_room = True  # the agent has read its reports
        self.lives = 0
        self.restart()

    def restart(self):
        """Start, or restart, with only the private key and the peers file."""
        self.lives += 1
        self._entropy = seeded((self.world.seed, self.name, self.lives))
        clock, timing = self.world.clock, self.world.timing
        self.engine = Engine(self.key, timing, entropy=self._entropy, wall_ns=clock.wall_ns)
        self.engine.journal = Recorder(lambda output: self.log.append((clock.now, output)))
        self.restart_forwarder()
        for number in self.known:
            self._adopt(number)

    def restart_forwarder(self):
        """Replace the core by a new one, and tell it everything that it must know."""
        self.reports = deque()
        self.sockets.clear()
        times = list(dataclasses.astuple(self.world.timing))
        start = crossed(
            link.Start(
                self.key.public,
                self.mtu,
                self.joins_udp,
                self.has_segments,
                times,
                self.ciphers,
                self.world.is_tap,
            )
        )
        self.core = Core(
            start,
            self.tun,
            report=self._report,
            entropy=self._entropy,
        )
        self.core.lanes.count = len(self.queues)
        self.paces = [self.core.outbound.pace, *(Batching() for _ in self.queues[1:])]
        self.lanes = []
        if native.core is not None and self.world.is_compiled:
            self.descriptors = {TUN: self.tun}
            first = self.core.compile(native.core, (TUN, TUN), 0)
            for number, queue in enumerate(self.queues[1:], 1):
                queue.descriptor, queue.writer = QUEUES + number, TUN
                self.descriptors[queue.descriptor] = queue
                self.lanes.append(Lane(native.core, self.core, first, number, queue))
            for each in (first, *self.lanes):
                each.lane.simulate(self.descriptors)
        self.commands = Commands(
            self.core,
            start,
            carrier=self._carrier_of,
            queues=FakeQueues,
            link_is_idle=lambda: self.link_has_room,
        )
        self.set_node()
        self.open_sockets()
        self.route([(subnet, link.OWN) for subnet in self.subnets])
        for number in self.known:
            self._tell_peer(number)

    def set_node(self, mtu=None, public_keys=()):
        """Tell the forwarder of this host, whose device has another MTU if one is given, or
        which answers to other keys.
        """
        self.mtu = mtu or self.mtu
        addresses = [packets.packed(first_of(each)) for each in self.subnets]
        families = (socket.AF_INET, socket.AF_INET6)
        self.paths = [FakePathSocket(self) for _ in families]
        macs = [self.mac] if self.world.is_tap else []
        self.tell(
            link.SetNode(
                self.mtu,
                False,
                addresses,
                self.inherits_ttl,
                macs=macs,
                families=list(map(int, families)),
                public_keys=list(public_keys),
            ),
            self.paths,
        )

    def know(self, other, *, psk=None, keepalive=0.0, endpoint=True, subnets=None, macs=(), addresses=()):
        """Make *other* a peer, at its first address unless told otherwise; return its number."""
        number = len(self.known) + 1
        self.stations[number] = list(macs), [ip_address(each).packed for each in addresses]
        if endpoint is True:
            endpoint = (other.addresses[0], other.port)
        self.known[number] = (other.key.public, psk, keepalive, endpoint, subnets or other.subnets)
        self._adopt(number)
        self._tell_peer(number)
        return number

    def _adopt(self, number):
        """Make the engine know a peer."""
        public_key, psk, keepalive, endpoint, _ = self.known[number]
        peer = Peer(f"peer{number}", public_key, keepalive=keepalive)
        remote = Remote(number, peer, psk, endpoint=endpoint or None)
        by_name, by_number = (
            {**known} for known in (self.engine.roster.by_name, self.engine.roster.by_number)
        )
        by_name[peer.name] = by_number[number] = remote
        change = RosterChange([remote], [], [], [], [])
        self.engine.adopt(Prospect(None, change, by_name, by_number, number, []))

    def learn(self, number, public_key):
        """Know a peer by another public key from now on, as after a reload."""
        self.known[number] = public_key, *self.known[number][1:]
        roster = self.engine.roster
        remote = roster.by_number[number]
        remote.peer = dataclasses.replace(remote.peer, public_key=public_key)
        change = RosterChange([], [], [], [], [], [remote])
        self.engine.adopt(Prospect(None, change, roster.by_name, roster.by_number, number, []))
        self._carry_out(self.engine.meet(change))

    def know_in_the_clear(
        self, other, *, endpoint=True, subnets=None, sources=(), encapsulation="udp", identifier=None
    ):
        """Make *other* a peer of *encapsulation*; return its number."""
        if not self.clear_sockets:
            self._open_clear_sockets(encapsulation)
        number = 1 + max(self.core.peers, default=0)
        packed = [(network.network_address.packed, network.prefixlen) for network in map(ip_network, sources)]
        if ENCAPSULATIONS[encapsulation].facts.has_macs and identifier is None:
            identifier = VNI
        ends = Ends(identifier, derived_mac(self.name), derived_mac(other.name))
        self.tell(link.SetPeer(number, 0.0, encapsulation, packed, ends))
        if endpoint:
            at = (other.addresses[0], CLEAR_PORT) if endpoint is True else endpoint
            self.tell(link.SetEndpoint(number, at, "configuration"))
        self.route([(subnet, number) for subnet in subnets or other.subnets])
        return number

    def _open_clear_sockets(self, encapsulation):
        senders = ENCAPSULATIONS[encapsulation].senders
        families = (socket.AF_INET, socket.AF_INET6)
        ports = [(family, CLEAR_PORT) for family in families]
        ports += [(family, SENDERS_PORT + number) for family in families for number in range(senders)]
        self.clear_sockets = [FakeSocket(self, family, port) for family, port in ports]
        self.sockets += self.clear_sockets
        roles = [*[Role.RECEIVES] * 2, *[Role.SENDS] * 2 * senders] if senders else [Role.ALL] * 2
        rows = [
            link.SocketRow(int(family), port, int(role))
            for (family, port), role in zip(ports, roles, strict=True)
        ]
        self.tell(link.Sockets(encapsulation, rows), self.clear_sockets)
        self._describe_sockets()

    def _carrier_of(self, descriptor, _):
        return next(each for each in self.sockets if each.fileno() == descriptor)

    def know_raw(
        self, other, name, *, outer=4, identifier=None, endpoint=None, subnets=None, sources=(), **has
    ):
        """Make *other* a peer of an encapsulation without ports, over IP of version *outer*; return its number."""
        if name not in self.raw_sockets:
            protocols = dict.fromkeys(ENCAPSULATIONS[name].protocols.values())
            self.raw_sockets[name] = [
                FakeRaw(self, family, protocol, role)
                for family in (socket.AF_INET, socket.AF_INET6)
                for protocol in protocols
                for role in (Role.RECEIVES, Role.SENDS, Role.SENDS_WHOLE)
            ]
            self.open_raw(name)
        number = 1 + max(self.core.peers, default=0)
        packed = [(network.network_address.packed, network.prefixlen) for network in map(ip_network, sources)]
        self.tell(link.SetPeer(number, 0.0, name, packed, Ends(identifier, **has)))
        at = endpoint or ((other.addresses[0], 0) if outer == 4 else (other.addresses[1], 0, 0, 0))
        self.tell(link.SetEndpoint(number, at, "configuration"))
        self.route([(subnet, number) for subnet in subnets or other.subnets])
        return number

    def open_raw(self, name):
        """Use raw sockets for *name* from now on."""
        opened = self.raw_sockets[name]
        self.sockets += opened
        rows = [link.SocketRow(int(each.family), 0, int(each.role), each.protocol) for each in opened]
        self.tell(link.Sockets(name, rows), opened)
        self._describe_sockets()

    def _tell_peer(self, number):
        _, _, keepalive, endpoint, subnets = self.known[number]
        macs, addresses = self.stations[number]
        self.tell(link.SetPeer(number, keepalive, macs=macs, addresses=addresses))
        if endpoint:
            self.tell(link.SetEndpoint(number, endpoint, "configuration"))
        self.route([(subnet, number) for subnet in subnets])

    def route(self, add=(), remove=(), *, is_last=True):
        def split(prefix):
            network = ip_network(prefix)
            return network.network_address.packed, network.prefixlen

        self.tell(
            link.Routes([(*split(p), peer) for p, peer in add], [split(p) for p in remove], is_last=is_last)
        )

    def open_sockets(self, roles=(Role.ALL,)):
        """Open sockets on ``port`` and use them from now on; of Role.HANDSHAKES too where these are received apart."""
        families = (socket.AF_INET, socket.AF_INET6)
        opened = [FakeSocket(self, family, self.port, role) for role in roles for family in families]
        for lane in range(1, len(self.queues)):
            opened += [FakeSocket(self, family, LANE_PORTS + lane, Role.SENDS, lane) for family in families]
        self.sockets += opened
        rows = [
            link.SocketRow(int(each.family), each.port, int(each.role), lane=each.lane) for each in opened
        ]
        self.tell(link.Sockets("wireguard", rows), opened)
        self._describe_sockets()

    def _describe_sockets(self):
        """Give new sockets descriptors, by which the compiled path knows them."""
        for udp in self.core.sender.sockets:
            if udp.descriptor < 0 and self.core.inbound.compiled is not None:
                udp.descriptor = len(self.descriptors) + TUN
                self.descriptors[udp.descriptor] = Raw(udp)

    def tell(self, command, sockets=()):
        self.commands.handle(crossed(command), sockets, self.world.clock.now)

    def _report(self, report):
        if len(self.reports) >= self.link_size:
            return False
        self.reports.append(codec.encode(report))
        return True

    # The two loops

    def turn(self):
        """Do what can be done now, as the loops of forwarder and agent do; return whether there was anything."""
        core, now = self.core, self.world.clock.now
        core.table.catch_up()
        is_active = core.next_deadline() <= now
        if is_active:
            for udp in core.handle_deadline(now, self._slice()):
                udp.raw.close()
        for udp in list(core.sender.sockets):
            while udp.raw.inbox:
                core.inbound.drain(udp, now)
                is_active = True
        if any(queue.outgoing for queue in self.queues):
            is_active |= bool(self.tun.outgoing)
            self._drain_tun(now)
        if core.sender.is_holding:
            core.sender.resume()
        if core.jobs.is_ready():
            core.jobs.run(now, self._slice())
            is_active = True
        return is_active | (not self.is_agent_busy and self._agent_turn(now))

    def _drain_tun(self, now):
        core = self.core
        if len(self.queues) > 1:
            sent, self.tun.outgoing = self.tun.outgoing, deque()
            for each in sent:
                self.queues[self.lane_of(each[10:]) if len(each) >= 50 else 0].outgoing.append(each)
        for number, queue in enumerate(self.queues):
            while queue.outgoing:
                if number and self.lanes:
                    lane = self.lanes[number - 1]
                    lane.settle()
                    lane.answer(lane.lane.drain_tun(now), None, now)
                    continue
                core.outbound.lane, core.outbound.pace = number, self.paces[number]
                core.outbound.drain(queue, now)
                core.outbound.lane, core.outbound.pace = 0, self.paces[0]

    def _slice(self):
        """Return what tells whether there is time for another step."""
        steps = itertools.count(1)
        return lambda: next(steps) < self.steps

    def _agent_turn(self, now):
        if not self.reports and self.engine.next_deadline() > now:
            return False
        for later in itertools.count():
            if not self.reports:
                break
            report = codec.decode(self.reports.popleft())
            self.reported.append(report)
            if isinstance(report, SessionReport):
                # Like the agent, which reads the clock for each: no two things happen at the same moment.
                self._carry_out(self.engine.take(report, now + later * MOMENT))
            if isinstance(report, link.Handshake):
                self.tell(link.Handled(1))
        if self.engine.next_deadline() <= now:
            self._carry_out(self.engine.handle_deadline(now))
        return True

    def want(self, peer, *, is_idle=False):
        self._carry_out(self.engine.want(peer, self.world.clock.now, is_idle=is_idle))

    def _carry_out(self, effects):
        for effect in effects:
            if isinstance(effect, GiveUp | LookUp | Relocated):
                self.log.append((self.world.clock.now, effect))
            if not isinstance(effect, LookUp | Relocated):
                self.tell(effect)

    def next_deadline(self):
        return min(self.core.next_deadline(), math.inf if self.is_agent_busy else self.engine.next_deadline())

    # For stories: actions and observations

    def inner(self, version=4):
        return first_of(self.subnets[0 if version == 4 else 1])

    def send(self, other, count=1, size=60, version=4, **ip):
        """Let this host send *count* new UDP packets to *other*, and return them."""
        sent = []
        for _ in range(count):
            self.world.serial += 1
            body = f"{self.world.serial:08}".encode().ljust(size, b".")
            addresses = {"source": self.inner(version), "destination": other.inner(version), **ip}
            sent.append(packets.udp(body, version=version, **addresses))
        self.tun.outgoing += [packets.PLAIN + packet for packet in sent]
        return sent

    def send_super(self, other, size, segment=1360, version=4, **tcp):
        """Let this host send one TCP super-packet, and return the segments that it stands for."""
        addresses = {"source": self.inner(version), "destination": other.inner(version)}
        body = seeded(size)(size)
        whole = packets.tcp(body, version=version, **addresses, **tcp)
        packet, virtio = packets.as_super_packet(whole, segment)
        self.tun.outgoing.append(virtio + packet)
        return packets.kernel_segments(packet, virtio)

    def send_frame(self, destination, packet, *, virtio=packets.PLAIN, source=None, tag=b""):
        """Let this host, or a station behind it, send *packet*, IP or with its EtherType before it;
        return the frame.
        """
        frame = destination + (source or self.mac) + tag + packets.with_ethertype(packet)
        self.tun.outgoing.append(virtio + frame)
        return frame

    @property
    def sessions(self):
        return self.engine.sessions

    @property
    def refused(self):
        """The handshakes that the sessions refused, by reason."""
        return Counter(self.engine.refusals.counts)

    @property
    def silent(self):
        """The peers that do not answer, as far as the agent knows."""
        return {number for number, remote in self.engine.roster.by_number.items() if remote.is_silent}

    @property
    def received(self):
        return self.tun.received

    @property
    def drops(self):
        """What was dropped, by reason, for all peers and for none."""
        return sum((peer.drops for peer in self.core.peers.values()), Counter(self.core.drops))

    def peer(self, number=1):
        return self.core.peers[number]

    def logged(self, kind):
        return [output for _, output in self.log if isinstance(output, kind)]


class Recorder(Journal):
    """A journal that passes on the events of handshakes."""

    def __init__(self, record):
        super().__init__()
        self._record = record

    def met(self, remote, output, handshakes, now):
        self._record(output)
        super().met(remote, output, handshakes, now)


def crossed(message):
    """Return *message* as the other end of the link reads it."""
    data = codec.encode(message)
    assert len(data) <= codec.MESSAGE_BYTES
    return codec.decode(data)


class World:
    """The clock, the network and the nodes of one story."""

    goes_compiled = False  # by the twin, if there is one, unless a story says otherwise

    def __init__(
        self,
        seed=0,
        timing=None,
        *,
        has_gro=True,
        ciphers=(),
        is_tap=False,
        is_compiled=None,
        network=Network,
        lanes=1,
    ):
        self.lanes = lanes  # of nodes made from now on
        self.is_compiled = World.goes_compiled if is_compiled is None else is_compiled
        self.seed, self.timing, self.has_gro, self.is_tap = seed, timing or Timing(), has_gro, is_tap
        self.ciphers = ciphers  # of bulk units, for nodes made from now on; none as WireGuard has it
        self.clock, self.serial = Clock(), 0
        self.network = network(self.clock, seed)
        self.nodes = self.network.nodes

    def node(self, name):
        node = Node(self, name, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    def pair(self, **how):
        """Return nodes a and b, which know each other as peer 1."""
        a, b = self.node("a"), self.node("b")
        a.know(b, **how)
        b.know(a, **how)
        return a, b

    def clear_pair(self, **how):
        """Return nodes a and b, which know each other as peer 1 in the clear."""
        a, b = self.node("a"), self.node("b")
        a.know_in_the_clear(b, **how)
        b.know_in_the_clear(a, **how)
        return a, b

    def raw_pair(self, name, **how):
        """Return nodes a and b, which know each other as peer 1 by an encapsulation without ports."""
        a, b = self.node("a"), self.node("b")
        a.know_raw(b, name, **how)
        b.know_raw(a, name, **how)
        return a, b

    def run(self, seconds):
        """Let time pass from deadline to deadline; everything is done as soon as it can be."""
        end = self.clock.now + seconds
        while True:
            while sum(node.turn() for node in self.nodes):
                pass
            due = min([self.network.next_arrival(), *(node.next_deadline() for node in self.nodes)])
            if due > end:
                break
            self._advance_to(due)
            self.network.deliver()
        self._advance_to(end)

    def sleep(self, seconds):
        """Let time pass with every node suspended."""
        self.clock.advance(seconds)
        self.network.deliver()

    def sent(self, kind, by=None, since=0.0):
        """Return when datagrams of *kind* were sent."""
        return [
            at for at, who, what, _ in self.network.sent if what == kind and at >= since and by in {None, who}
        ]

    @property
    def trace(self):
        return "\n".join(self.network.trace)

    def _advance_to(self, when):
        if when > self.clock.now:
            self.clock.advance(when - self.clock.now)
            self.clock.now = when
