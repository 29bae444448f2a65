"""One story run twice, through Python and through the compiled twin: both must end the same."""

from __future__ import annotations

import dataclasses
import errno
import math
import random
from collections import Counter
from ipaddress import ip_address, ip_network

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.forwarding.keypair import NONCE
from overlay.forwarding.peer import TunnelHeader
from overlay.link.messages import OWN, BeginCapture, Routes, SetPeer
from overlay.link.service_messages import (
    VIRTUAL,
    PermitRow,
    RemoveService,
    ServerRow,
    SetPermits,
    SetServers,
    SetService,
)
from overlay.wire import icmp
from overlay.wire.bulk import AES_256_GCM, CHACHA20_POLY1305, FRAGMENT_HEADER_SIZE
from overlay.wire.dropped import Dropped
from overlay.wire.messages import TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT
from tests import packets, units
from tests.network import Flight
from tests.on_link import OnLink, known
from tests.sim import CLEAR_PORT, LANE_PORTS, World

VIPS = ip_address("203.0.113.80"), ip_address("2001:db8:9::80")
CLIENTS = {
    4: [
        "198.51.100.7",
        "198.51.100.200",
        "203.0.113.5",
        "10.9.9.9",
        "10.244.3.3",
        "255.255.255.255",
        "0.0.0.0",
    ],
    6: ["2001:db8:7::7", "2001:db8:8::7", "fd00::9", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
}
SOURCES = (
    ["0.0.0.0/0", "::/0"],
    ["198.51.0.0/16", "10.0.0.0/8", "2001:db8::/32"],
    ["0.0.0.0/0", "10.9.9.9/32", "2001:db8:7::/48", "128.0.0.0/1"],
    [],
)
STRANGER = ("198.51.100.9", 4000)
TAPS_IN_THE_CLEAR = "vxlan of taps", "geneve of taps"
SETTINGS = ("has_gro", "ciphers", "mtu", "joins_udp", "has_segments")


class ToldDrops:
    """A capture of what a node drops."""

    def __init__(self):
        self.messages = []

    def send(self, data, _):
        self.messages.append(Dropped.parse(data))

    def close(self):
        pass


class Story(OnLink):
    """A world of two nodes, and everything that can happen in it.  *chance* is the same in both runs."""

    def __init__(self, is_compiled, seed, *, has_gro=True, is_bulk=True, by="wireguard", **how):
        is_sealed = by in {"wireguard", "services", "tap"}
        ciphers = (AES_256_GCM, CHACHA20_POLY1305) if is_bulk and is_sealed else ()
        self.is_tap = by == "tap" or by in TAPS_IN_THE_CLEAR
        self.world = World(
            seed, has_gro=has_gro, ciphers=ciphers, is_compiled=is_compiled, is_tap=self.is_tap, **how
        )
        self.by = by
        self.is_served = False
        self.is_clear = not is_sealed
        self.encapsulation = ENCAPSULATIONS[by.split()[0]] if self.is_clear else None
        self.identifier = 7 if by in {"gre with a key", "gre with all"} else None
        self.has = dict.fromkeys(("has_checksum", "has_sequence"), by == "gre with all")
        self.is_raw = self.is_clear and not self.encapsulation.has_ports
        if self.is_raw:
            self.nodes = self.world.raw_pair(self.encapsulation.name, identifier=self.identifier, **self.has)
        else:
            name = self.encapsulation.name if self.is_clear else ""
            self.nodes = self.world.clear_pair(encapsulation=name) if self.is_clear else self.world.pair()
        for node in self.nodes if self.is_clear or self.is_tap else ():
            node.tun.packets_of = lambda *_: []  # the kernel checks a liar's super-packets
        if by == "services":
            self.serve(self.nodes[0], self.nodes[1], 0, 0)
            self.permit(self.nodes[0], self.nodes[1], 0, 0)
            self.permit(self.nodes[1], self.nodes[0], 0, 0)
        for node in self.nodes:
            node.told = ToldDrops()
            node.before = Counter(node.drops)
            node.core.captures.begin(BeginCapture(1, 1 << 16), [node.told])
            node.core.jobs.run(self.world.clock.now)
        # Flows have queues of their own there, and so have lanes
        self.world.network.goes_by_flow = by.split()[0] in {"vxlan", "geneve"} or self.world.lanes > 1
        self.chance = random.Random(seed)
        self.seen = []  # what went over the network
        send = self.world.network.send

        def record(flight, sender="?"):
            self.seen.append(flight)
            send(flight, sender)

        self.world.network.send = record
        if self.is_tap:
            self.meet()

    def do(self, kind, who, size, detail):
        """Let one thing happen: *who*, *size* and *detail* are any numbers."""
        node, other = self.nodes[who % 2], self.nodes[1 - who % 2]
        if self.is_tap:
            self.choose_links(size, detail)
        waiting = [len(each.tun.outgoing) for each in self.nodes]
        getattr(self, kind)(node, other, size, detail)
        for each, begin in zip(self.nodes, waiting, strict=True):
            if self.is_tap and len(each.tun.outgoing) > begin:
                self.put_on_link(each, begin)

    # What hosts send

    def singles(self, node, other, size, detail):
        node.send(
            other, 1 + detail % 40, size % 1373, (4, 6)[detail % 2], tos=detail % 4 if detail % 7 == 0 else 0
        )

    def syn(self, node, other, size, detail):
        version = (4, 6)[detail % 2]
        options = bytes([2, 4, size >> 8 & 0xFF, size & 0xFF]) if detail % 3 else b""
        packet = packets.tcp(
            version=version,
            source=node.inner(version),
            destination=other.inner(version),
            flags=2,
            tcp_options=options,
        )
        if version == 6 and detail % 5 == 0:
            packet = packets.with_options(packet)
        node.tun.outgoing.append(packets.PLAIN + packet)

    def train(self, node, other, size, detail):
        node.send_super(other, 2 + size % 65000, 1 + detail % 1360, (4, 6)[detail % 2])

    def full_train(self, node, other, size, detail):
        node.send_super(other, 2 + size % 65000, (1360, 536, 1340)[detail % 3], (4, 6)[detail % 2])

    def datagrams(self, node, other, size, detail):
        version = (4, 6)[detail % 2]
        whole = packets.udp(
            bytes(self.chance.randbytes(2 + size % 60000)),
            version=version,
            source=node.inner(version),
            destination=other.inner(version),
        )
        packet, virtio = packets.as_super_packet(whole, 300 + detail % 1000)
        node.tun.outgoing.append(virtio + packet)

    def spread(self, node, other, size, detail):
        """Packets of many flows, one behind the other."""
        for number in range(1 + detail % 30):
            node.send(other, 1 + size % 3, size % 1373, (4, 6)[detail % 2], ports=(3000 + number, 80))

    def spread_trains(self, node, other, size, detail):
        for number in range(1 + detail % 8):
            ports = 3000 + number, 80
            node.send_super(other, 2 + size % 65000, (1360, 536)[detail % 2], (4, 6)[detail % 2], ports=ports)

    def stop_port(self, node, _, __, detail):
        """A firewall on the path blocks the source port of one lane, or none."""
        port = LANE_PORTS + detail % 5
        self.world.network.lose = lambda flight: flight.source[:2] == (node.addresses[0], port)

    def odd(self, node, other, size, detail):
        """A packet with one byte, or its virtio header, changed."""
        version = (4, 6)[detail % 2]
        made = packets.tcp if detail % 3 else packets.udp
        packet = bytearray(
            packets.PLAIN
            + made(
                bytes(size % 600),
                version=version,
                source=node.inner(version),
                destination=other.inner(version),
            )
        )
        packet[self.chance.randrange(min(len(packet), 80))] = self.chance.randrange(256)
        node.tun.outgoing.append(bytes(packet[: len(packet) - detail % 5 * 7]))

    # What the network does

    def run(self, _, __, size, detail):
        self.world.run((0.001, 0.02, 0.3, 1.0, 5.0)[detail % 5] + size % 7 / 1000)

    def lose(self, _, __, size, detail):
        self.world.network.loss = (0.0, 0.0, 0.01, 0.2)[detail % 4]
        self.world.network.reorder = (0.0, 0.1)[size % 2]
        self.world.network.duplicate = (0.0, 0.0, 0.1)[size % 3]

    def mark(self, _, __, ___, detail):
        value = detail % 4
        self.world.network.mark = lambda flight: flight.tos & ~3 | value

    def merge(self, node, _, size, detail):
        node.has_gro, node.gro_count = bool(detail % 3), 1 + size % 64

    def fill(self, node, _, __, detail):
        for each in node.sockets:
            each.is_full = detail % 3 == 0
            each.room = detail % 70 if detail % 3 == 0 else math.inf

    def fail(self, node, _, size, detail):
        code = (errno.EAGAIN, errno.EMSGSIZE, errno.EINVAL, errno.ENETUNREACH, errno.EIO)[detail % 5]
        node.sockets[size % len(node.sockets)].errors.append(code)

    def block(self, node, _, __, detail):
        node.tun.error = (None, BlockingIOError(errno.EAGAIN, "full"), OSError(errno.EIO, "down"))[detail % 3]

    # What attackers and the agent do

    def again(self, _, __, size, detail):
        """Datagrams that were sent before arrive again: unchanged, changed, cut short, or from another address."""
        for _ in range(1 + detail % 5):
            if not self.seen:
                return
            seen = self.seen[-200:]
            if self.world.network.goes_by_flow:
                seen = sorted(self.seen, key=lambda flight: (flight.source, flight.destination))
            flight = self.chance.choice(seen)
            data, whole = bytearray(flight.datagram), len(flight.datagram)
            if detail % 2 and data:
                data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
            if detail % 3 == 0:
                data = data[: self.chance.randrange(len(data) + 1)]
            if detail % 5 == 0:
                flight = dataclasses.replace(flight, source=STRANGER[: len(flight.source)])
            segment = flight.segment if len(data) == whole else 0
            self.world.network.send(
                dataclasses.replace(flight, datagram=bytes(data), segment=segment), "again"
            )

    def garbage(self, node, other, size, detail):
        for _ in range(1 + detail % 30):
            data = bytearray(self.chance.randbytes(size % 1500 if detail % 2 else 60))
            if data and detail % 3:
                data[:4] = (self.chance.randrange(7)).to_bytes(4, "little")[: len(data)]
            source = self.at(other) if self.is_clear and size % 3 == 0 else STRANGER
            flight = Flight(source, self.at(node), bytes(data), protocol=self.protocol(4 + detail % 2 * 2))
            self.world.network.send(flight, "stranger")

    def flood(self, node, _, size, detail):
        """Trains of datagrams that are garbage, or look like those of a session."""
        width, count = 1 + size % 1500, 2 + detail % 63
        keypair = node.peer().keypairs.current
        index = keypair.local_index if keypair is not None and size % 5 == 0 else self.chance.getrandbits(32)
        head = bytes([(0, 4, 4, 5, 4, 1)[detail % 6], 0, 0, 0]) + index.to_bytes(4, "little")
        data = b"".join((head + self.chance.randbytes(width))[:width] for _ in range(count))
        self.to(node, STRANGER, data[: len(data) - size % width], width, size % 4)

    def forge(self, node, other, size, detail):
        """A peer seals arbitrary packets: segments of one flow, in order or not, some with changed bytes."""
        keypair = node.peer().keypairs.current
        if keypair is None:
            return
        made = self.some_packets(node, other, size, detail, 1 + detail % 40)
        if self.is_tap:
            made = self.framed(node, made, detail)
        sealed = [seal(keypair, each) for each in made]
        if detail % 11 == 0:
            self.chance.shuffle(sealed)
        self.to(other, (node.addresses[0], node.port), b"".join(sealed), len(sealed[0]), detail % 4)

    def forge_unit(self, node, other, size, detail):
        """The same as a unit, whose fragments may be missing, duplicated or reordered."""
        keypair = node.peer().keypairs.current
        if keypair is None or keypair.bulk is None or keypair.bulk.key is None:
            return
        key = keypair.bulk.key
        (packet,) = self.some_packets(node, other, 3 * size, detail, 1, most=30_000)
        gso_type = (1, 4)[detail % 2] if packet[9 if detail % 2 == 0 else 6] == packets.TCP else 5
        plain = bytearray(units.plaintext(packet, gso_type, 256 + detail % 1100))
        if detail % 9 == 0:
            plain[self.chance.randrange(4)] ^= 1 << self.chance.randrange(8)
        if self.is_tap:
            plain = self.with_link(node, plain, detail)
        counter, key.counter = key.counter, key.counter + 1
        whole = bytearray(len(plain) + TAG_SIZE)
        key.seal(NONCE(counter), plain, None, whole)
        piece = max(len(whole) // 200 + 1, size % 1400)
        pieces = units.datagrams(bytes(whole), key.cipher, keypair.remote_index, counter, piece)
        if detail % 5 == 0:
            self.chance.shuffle(pieces)
        if detail % 7 == 0:
            del pieces[self.chance.randrange(len(pieces))]
        if detail % 13 == 0:
            pieces += pieces[:3]
        source = STRANGER if detail % 17 == 0 else (node.addresses[0], node.port)
        for at in range(0, len(pieces), 40):
            self.to(other, source, b"".join(pieces[at : at + 40]), piece + FRAGMENT_HEADER_SIZE, size % 4)

    def to(self, node, source, data, size, tos):
        """Send *node* datagrams of *size* bytes except for the last, from *source*."""
        train = Flight(source, (node.addresses[0], node.port), data, tos)
        self.world.network.send_train(train, size, "forger")

    def some_packets(self, node, other, size, detail, count, most=1372):
        """Return *count* packets of one flow and one size, padded as messages are."""
        version, chance = (4, 6)[detail % 2], self.chance
        ends = {"version": version, "source": node.inner(version), "destination": other.inner(version)}
        body = bytes(size % most)
        if detail % 3:
            flags = packets.ACK if detail % 4 else chance.getrandbits(8)
            made = [
                packets.tcp(body, sequence=1 + number * len(body), flags=flags, identifier=number, **ends)
                if version == 4
                else packets.tcp(body, sequence=1 + number * len(body), flags=flags, **ends)
                for number in range(count)
            ]
        else:
            made = [packets.udp(body, **ends) for _ in range(count)]
        if detail % 8 == 0:
            for _ in range(1 + detail % 3):
                at = chance.randrange(count)
                changed = bytearray(made[at])
                changed[chance.randrange(min(len(changed), 64))] ^= 1 << chance.randrange(8)
                made[at] = bytes(changed)
        length = len(made[0])
        padded = length if most > 1372 else min(-(-length // 16) * 16, max(length, 1420))
        return [each.ljust(padded, b"\0") for each in made]

    def moved(self, node, _, __, detail):
        node.mtu = (1420, 1380, 1280)[detail % 3]
        node.set_node()

    def forget(self, node, other, _, __):
        node.want(1)

    def mixture(self, node, other, size, detail):
        """Datagrams of one size come from one stranger, or from the other, so that they are merged; few have valid
        contents.
        """
        source = STRANGER if detail % 3 else self.at(other)
        width = (16, 17, 32, 60, 64, 92, 148, 4, 1400)[size % 9]
        indices = [index for each in self.nodes for index in each.core.by_index]
        for number in range(2 + detail % 40):
            data = bytearray(self.chance.randbytes(width))
            if number % (1 + size % 7) == 0:
                kind = bytes([self.chance.randrange(7), 0, 0, 0]) if detail % 2 else b"\5"
                data[: len(kind)] = kind
            if number % 5 == 0 and indices and detail % 5 < 2:
                data[4:8] = self.chance.choice(indices).to_bytes(4, "little")
            self.world.network.send(Flight(source, self.at(node), bytes(data[:width])), "mixture")

    # Unencrypted

    def at(self, node):
        """Return the address that a node is sent to."""
        return node.addresses[0], 0 if self.is_raw else CLEAR_PORT if self.is_clear else node.port

    def protocol(self, version):
        """Return the version of the outer header around packets of *version*."""
        return self.encapsulation.protocols[version] if self.is_clear else 17

    def crafted(self, node, other, size, detail):
        """Payloads arrive that only another implementation, or a liar, would build."""
        version, payloads = (4, 6)[detail % 2], []
        for number in range(1 + detail % 9):
            made = packets.tcp if detail % 3 else packets.udp
            source = other if size % 11 else node
            packet = made(
                self.chance.randbytes(size % (1300, 9000, 62_000)[(detail % 4 == 3) + (detail % 16 == 15)]),
                version=version,
                source=source.inner(version),
                destination=node.inner(version),
                tos=size % 4,
            )
            if size % 3 == 0:
                packet, _ = packets.as_super_packet(packet, 1)  # its checksum is left partial
            payload = bytearray(self.payload(other, other.peer().tunnel, packet))
            if detail % 5 == number % 5 and size % 2:
                payload[self.chance.randrange(min(len(payload), 60))] ^= 1 << self.chance.randrange(8)
            if size % 13 == 0:
                payload += bytes(detail % 50)
            if size % 17 == 0:
                del payload[self.chance.randrange(len(payload)) :]
            payloads.append(bytes(payload))
        for payload in payloads:
            ends = self.at(other), self.at(node)
            flight = Flight(*ends, payload, tos=detail % 4, protocol=self.protocol(version))
            self.world.network.send(flight, "crafted")

    def tell(self, node, other, size, detail):
        """An ICMP error goes through the tunnel."""
        quoted = packets.tcp(bytes(100), source=other.inner(), destination=node.inner())
        error = icmp.too_big_v4(quoted, size % 1600)
        packet = packets.ipv4(error, source=node.inner(), destination=other.inner(), protocol=1)
        node.tun.outgoing.append(packets.PLAIN + packet)
        if detail % 2:
            node.send(other, 3, size % 1400, ttl=detail % 3)

    def inherit(self, node, _, __, detail):
        node.inherits_ttl = bool(detail % 2)
        node.set_node()

    def learn(self, node, other, size, detail):
        """The kernel learns that the path to the other node has a smaller MTU, or no longer has one."""
        node.known_mtus[other.addresses[0]] = (1500, 1400, 600, 1500)[detail % 4]
        node.peer().path.due = 0.0

    def join(self, node, other, size, detail):
        """Another peer appears, at the same address or at another."""
        if len(node.core.peers) < 3:
            subnets = [f"10.244.{100 + len(node.core.peers)}.0/24"]
            if self.is_raw:
                place = ((other.addresses[0], 0), ("192.0.2.99", 0))[detail % 2]
                node.know_raw(
                    other,
                    self.encapsulation.name,
                    identifier=(detail % 3 or None) if self.encapsulation.facts.identifier else None,
                    endpoint=place,
                    subnets=subnets,
                    **self.has,
                )
                return
            place = (other.addresses[0], CLEAR_PORT + 1) if detail % 2 else ("192.0.2.99", CLEAR_PORT)
            node.know_in_the_clear(
                other,
                encapsulation=self.encapsulation.name,
                endpoint=place,
                subnets=subnets,
                sources=["10.0.0.0/8"][: detail % 3],
                identifier=7 + size % 3 if self.encapsulation.facts.has_macs else None,
            )

    def payload(self, node, tunnel, packet):
        """Return the payload with which *node* sends *packet* through *tunnel*."""
        if self.is_tap:
            return tunnel.frame_header + self.link_from(node, packet) + packet
        return tunnel.payload(packet)

    def fly(self, other, node, payload, detail, version, what):
        """A datagram of an unencrypted tunnel goes from the other node to *node*."""
        flight = Flight(
            self.at(other), self.at(node), payload, tos=detail % 4, protocol=self.protocol(version)
        )
        self.world.network.send(flight, what)

    def crowd(self, node, other, size, detail):
        """Packets of all peers arrive from the address of one, each with a flow of its own."""
        peers = list(node.core.peers.values())
        if size % 2 and len(peers) == 1:
            self.join(node, other, size // 2, 1)
            peers = list(node.core.peers.values())
        body = self.chance.randbytes(size % 1300)
        for number in range(2 + detail % 30):
            peer = peers[number // (1 + detail % 5) % len(peers)]
            owner = peers[number % len(peers)] if size % 11 == 0 else peer
            source = other.inner() if owner.number == 1 else f"10.244.{99 + owner.number}.9"
            packet = packets.tcp(
                body,
                sequence=1 + number * len(body),
                source=source,
                destination=node.inner(),
                identifier=number,
            )
            tunnel = far_end_of(peer)
            tunnel.sent = number + detail % 40
            self.fly(other, node, self.payload(other, tunnel, packet), detail, 4, "crowd")

    def press(self, node, other, size, detail):
        """More arrives than the node takes, from where two peers may be; time goes on while it is taken."""
        self.join(node, other, size, int(self.is_raw))
        for _ in range(24):
            self.crowd(node, other, size, detail - detail % 30 + 29)
            for flight in self.seen[-1 - detail % 17 :]:
                elsewhere = "192.0.2.99", flight.source[1]
                self.world.network.send(dataclasses.replace(flight, source=elsewhere), "press")
        self.world.clock.advance(1)
        self.world.network.deliver()
        pressed = [each for each in node.core.sender.sockets if each.raw.inbox]
        for udp in pressed:
            udp.raw.arrived = 100_000_000
            while node.core.inbound.drain(udp, self.world.clock.now):
                self.world.clock.advance(0.03)
            udp.raw.arrived = 0

    def clients(self, node, other, size, detail):
        """Packets with arbitrary sources come from the other node, which may also send from some prefixes that are not
        its own.
        """
        if size % 3 == 0 or node.peer().unsealed.sources is None:
            self.allow(node, detail)
        if size % 5 == 0:
            prefix = ("198.51.100.128/25", "10.9.0.0/16", "2001:db8:7::/48")[detail % 3]
            node.route(*([], [prefix]) if size % 2 else ([(prefix, 1 + size % 4 // 3)],))
        if size % 11 == 0:
            self.permit(node, other, size, detail)
        version, far = (4, 6)[detail % 2], far_end_of(node.peer())
        sources = CLIENTS[version] + [other.inner(version), node.inner(version)]
        source, body = self.chance.choice(sources), self.chance.randbytes(size % 1300)
        destination = str(VIPS[version == 6]) if size % 7 == 0 else node.inner(version)
        for number in range(1 + detail % 30):
            if number % (1 + detail % 7) == 0:
                source = self.chance.choice(sources)
            ends = {"version": version, "source": source, "destination": destination, "tos": size % 4}
            if version == 4:
                ends |= {
                    "identifier": number,
                    "fragment": 0x2000 if detail % 9 == 0 else packets.DONT_FRAGMENT,
                }
            if detail % 4:
                packet = packets.tcp(body, sequence=1 + number * len(body), ports=(4000, 80), **ends)
            else:
                packet = packets.udp(body, ports=(4000, 80), **ends)
            far.sent = number + detail % 40
            self.fly(other, node, far.payload(packet), detail, version, "clients")

    def allow(self, node, detail):
        """Peer 1 of *node* may send from other prefixes from now on."""
        peer = node.peer()
        networks = map(ip_network, SOURCES[detail % len(SOURCES)])
        packed = [(each.network_address.packed, each.prefixlen) for each in networks]
        node.tell(SetPeer(1, 0.0, self.encapsulation.name, packed, peer.tunnel.ends))

    # Virtual services: the first node is a director, the other a server

    def serve(self, _, server, size, detail):
        """The director has a service with other servers or settings, or no service any more."""
        director = self.nodes[0]
        if detail % 7 == 6 and self.is_served:
            director.tell(RemoveService(0))
            director.tell(Routes([], [(each.packed, each.max_prefixlen) for each in VIPS], True))
            self.is_served = False
            return
        ports = [(80, 81)] if size % 3 else [(80, 80), (443, 443)]
        scheduler = ("maglev", "rr", "wlc")[size % 3]
        director.tell(
            SetService(
                0, "web", [each.packed for each in VIPS], [6, 17], ports, scheduler, 0.0, 32, 128, False,
                [900.0, 120.0, 300.0], [50_000, 1_000_000, 65_536],
            )
        )  # fmt: skip
        rows = [
            ServerRow(0, "b:0", 1, 1, (0, 0, 0, 1, 2)[detail % 5]),
            ServerRow(1, "b:1", 1, 1, 0, 10 * (size % 5 == 4)),
            ServerRow(2, "own:0", OWN, 1, 0),
        ]
        director.tell(SetServers(0, rows[: 1 + detail % 3], []))
        director.tell(Routes([(each.packed, each.max_prefixlen, VIRTUAL) for each in VIPS], [], True))
        self.is_served = True

    def permit(self, node, _, size, detail):
        """A node admits packets that are for a service, or from it."""
        is_source = node is self.nodes[0]
        peers = [1] if detail % 5 < 4 else [2]
        rows = [
            PermitRow(each.packed, is_source, peers, [6, 17], [(80, 81 + size % 2)], bool(detail % 2))
            for each in VIPS
        ]
        node.tell(SetPermits(rows if detail % 7 < 6 else []))

    def visit(self, _, __, size, detail):
        """Clients send to the service, or are answered."""
        node, server = self.nodes
        version, flows = (4, 6)[detail % 5 == 4], 1 + size % 5
        for number in range(1 + size % 40):
            client = node.inner(version) if size % 4 else ("198.51.100.7", "2001:db8:7::7")[version == 6]
            ends = {"source": client, "destination": str(VIPS[version == 6])}
            ports = 40000 + number % flows, (80, 80, 80, 81, 443)[size % 5]
            sender = node
            if size % 7 == 6:
                sender, ports = server, ports[::-1]
                ends = {"source": ends["destination"], "destination": ends["source"]}
            body = self.chance.randbytes(size % 700)
            if detail % 3:
                flags = 16 if number % 9 else (16, 2, 24, 16, 2, 17, 16, 4)[detail // 3 % 8]
                packet = packets.tcp(body, version=version, ports=ports, flags=flags, **ends)
            else:
                packet = packets.udp(body, version=version, ports=ports, **ends)
            virtio = packets.PLAIN
            if detail % 11 == 0 and size % 700 > 300:
                packet, virtio = packets.as_super_packet(packet, 256)
            sender.tun.outgoing.append(virtio + packet)

    # The outcome

    def outcome(self):
        """Return everything that can be observed of the story."""
        for node in self.nodes:
            node.tun.error = None
            for each in node.sockets:
                each.is_full, each.room = False, math.inf
        self.world.run(2)
        if self.by == "services":
            flows = _flows(self.nodes[0])
        return {
            "datagrams": self.world.network.digest,
            "flows": flows if self.by == "services" else None,
            **{node.name: _seen(node) for node in self.nodes},
        }


def _flows(director):
    """Return what a director knows about flows and servers."""
    told = []
    for served in director.core.services._balancer._served.values():
        service = served.service
        told += [
            (key, shard.seen[row], shard.state[row], shard.server[row])
            for shard in service.flows.shards
            for key, row in shard.index.items()
        ]
        told += [(each.key, each.packets, each.bytes, each.connections) for each in service.servers]
        told.append(dict(service.drops))
    return told


def _seen(node):
    peer = node.peer()
    contact = peer.contact
    keypair = peer.keypairs.current
    return {
        "all drops are told of": _told(node),
        "written": node.tun.writes,
        "drops": dict(+node.drops),
        "traffic": [getattr(peer.traffic, name) for name in ("tx_bytes", "rx_bytes", "tx_packets", "rx_packets",
                                                              "tx_units", "rx_units")],
        "unsealed": [getattr(peer.unsealed, name) for name in ("segment_limit", "segment_limit_ends", "segment_size",
                                                               "sequence", "sequence_at")],
        "finished": peer.tunnel.sent,
        "peers": [(each.traffic.tx_packets, each.traffic.rx_packets, each.traffic.rx_bytes, each.unsealed.sequence,
                   dict(each.drops)) for each in node.core.peers.values()],
        "contact": [getattr(contact, name) for name in ("unanswered_since", "owed_since", "last_traffic",
                                                         "last_received", "wanted_at", "is_silent", "armed")],
        "returns": [(key, peer.number) for key, peer in node.core.services.permits._returns.items()],
        "counter": [] if keypair is None else [each.counter for each in keypair.all()],
        "lanes": [] if keypair is None or keypair.lanes is None else keypair.lanes.are_open(),
        "stations": known(node),
        "log": [(at, type(effect).__name__) for at, effect in node.log],
    }  # fmt: skip


def _told(node):
    """Return whether every dropped packet was reported to a capture, or counted as missed."""
    capture = node.core.captures._captures[1]
    told = sum(each.count for each in node.told.messages)
    kernel = ("receive_full", "udp_filtered", "link")
    drops = Counter(node.drops) - node.before
    for served in node.core.services._balancer._served.values():
        drops += served.service.drops
    drops += node.core.services._balancer.drops
    return told + capture.missed == sum(count for reason, count in drops.items() if reason not in kernel)


KINDS = (
    "singles", "syn", "train", "full_train", "datagrams", "odd", "run", "lose", "mark", "merge", "fill", "fail", "block",
    "again", "garbage", "moved", "forget", "flood", "forge", "forge_unit", "mixture",
)  # fmt: skip


TAP_KINDS = (*KINDS, "speak", "roam", "fix", "wait")


LANE_KINDS = (*KINDS, "spread", "spread", "spread_trains", "stop_port")


CLEAR_KINDS = (
    "singles", "syn", "train", "full_train", "datagrams", "odd", "run", "lose", "mark", "merge", "fill", "fail", "block",
    "again", "garbage", "moved", "crafted", "tell", "inherit", "learn", "join", "crowd", "clients", "clients",
)  # fmt: skip


TAP_CLEAR_KINDS = (
    *(kind for kind in CLEAR_KINDS if kind != "clients"), "speak", "roam", "fix", "wait",
)  # fmt: skip


SERVICE_KINDS = (
    "singles",
    "train",
    "run",
    "run",
    "run",
    "lose",
    "mark",
    "merge",
    "fill",
    "again",
    "moved",
    "serve",
    "permit",
    *["visit"] * 12,
)  # no "fail": packets that are looked up one by one leave in sends of their own, of which another is lost


def far_end_of(peer):
    """Return the unencrypted tunnel as *peer* has it."""
    ends = peer.tunnel.ends
    turned = Ends(ends.identifier, ends.mac, ends.own_mac, ends.has_checksum, ends.has_sequence)
    return TunnelHeader(peer.encapsulation, turned)


def seal(keypair, plaintext):
    """Return the message in which the owner of *keypair* sends *plaintext*."""
    counter, keypair.counter = keypair.counter, keypair.counter + 1
    sealed = bytearray(len(plaintext) + TAG_SIZE)
    keypair.seal(NONCE(counter), plaintext, None, sealed)
    return TRANSPORT_HEADER.pack(TYPE_TRANSPORT, keypair.remote_index, counter) + bytes(sealed)


def tell(steps, seed, *, story=Story, **how):
    """Run a story both ways, and return the outcome of each."""
    outcomes = []
    for is_compiled in (False, True):
        told = story(is_compiled, seed, **how)
        for step in steps:
            told.do(*step)
        outcomes.append(told.outcome())
    return outcomes


def noted_by_python(node):
    """Return a list that collects the ordinary packets that *node*'s twin leaves to Python."""
    left = []
    for twin, name in (
        (node.core.inbound.compiled, "_remember_sender"),
        (node.core.outbound.compiled, "_go_on"),
        (node.core.outbound.compiled, "_look_up"),
    ):
        done = getattr(twin, name)
        setattr(
            twin, name, lambda *given, done=done, name=name, **how: left.append(name) or done(*given, **how)
        )
    return left
