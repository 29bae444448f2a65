"""A network in memory: it delays, loses, reorders, doubles and translates datagrams, and ends in sockets and a tun."""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import heapq
import math
import random
import socket
import struct
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address

from overlay.encap.encapsulation import Role
from overlay.forwarding.underlay import mmsg
from overlay.linux import IP_PKTINFO, IPV6_PKTINFO, SOL_UDP, UDP_GRO, UDP_SEGMENT
from tests import packets

KINDS = {1: "initiation", 2: "response", 3: "cookie", 4: "data"}
HANDSHAKES = {"initiation", "response", "cookie"}


@functools.cache
def _packed(host):
    return ip_address(host).packed


@functools.cache
def _host(packed):
    return str(ip_address(packed))


@dataclass(frozen=True)
class Flight:
    """One datagram under way."""

    source: tuple
    destination: tuple
    datagram: bytes
    tos: int = 0
    may_be_cut: bool = False
    protocol: int = 17
    ttl: int = 0  # 0: the sender's own
    segment: int = 0  # of a train that goes as one: bytes of each datagram but the last

    @property
    def head(self):
        """All but the datagram."""
        return self.source, self.destination, self.tos, self.may_be_cut, self.protocol, self.ttl

    @functools.cached_property
    def kind(self):
        if self.datagram[:1] == b"\5":
            return "fragment"
        kind = KINDS.get(int.from_bytes(self.datagram[:4], "little"), "unknown")
        return "keepalive" if kind == "data" and len(self.datagram) == 32 else kind


class Network:
    """Delivers datagrams after a delay, unless they are lost, late or duplicated. Those larger than *mtu* are lost
    silently.
    """

    def __init__(self, clock, seed):
        self.clock, self.random = clock, random.Random(repr(seed))
        self.delay, self.loss, self.reorder, self.duplicate = 0.01, 0.0, 0.0, 0.0
        self.mtu = math.inf  # bytes of an IP packet that a router on the path accepts
        self.tells = False  # whether it reports this to the sender, whose kernel then knows
        self.lose = lambda flight: False  # a story's own rule for what is lost
        self.mark = lambda flight: flight.tos  # what a router does to the TOS
        self.nodes = []
        self.nats = {}
        self.sent = []  # (time, name of the sender, kind, size)
        self._fates = deque(maxlen=400)  # (time, flight, its fate) of the last ones
        # Datagrams sent at one moment are processed flow by flow, whatever order flows were sent in
        self.goes_by_flow = False
        self._digests = {}
        self._seed, self._by_flow = seed, {}  # random numbers for each flow
        self._arrivals, self._order = [], 0

    @property
    def digest(self):
        """Return a description of what was sent, and when: in order, where that matters."""
        return {ends: digest.hexdigest() for ends, digest in self._digests.items()}

    def _digest_of(self, flow):
        return self._digests.setdefault(flow, hashlib.sha256())

    def send(self, flight, sender="?"):
        now, chance, flow = self.clock.now, self.random.random, ()
        if self.goes_by_flow:
            flow = flight.source, flight.destination
            chance = self._by_flow.setdefault(flow, random.Random(repr((self._seed, flow)))).random
        digest = self._digest_of(flow)
        self.sent.append((now, sender, flight.kind, len(flight.datagram)))
        digest.update(repr((now, *flight.head, len(flight.datagram))).encode())
        digest.update(flight.datagram)
        nat = self.nats.get(flight.source[0])
        if nat is not None:
            flight = dataclasses.replace(flight, source=nat.outside(flight.source, now))
        if self._is_too_big(flight) and self.tells:
            for node in self.nodes:
                if flight.source[0] in node.addresses:
                    node.known_mtus[flight.destination[0]] = self.mtu
        if self._is_too_big(flight) or self.lose(flight) or chance() < self.loss:
            self._note(flight, "lost")
            return
        for _ in range(2 if chance() < self.duplicate else 1):
            self._fly(flight, flow, chance() * 5 * self.delay if chance() < self.reorder else 0)

    def _fly(self, flight, flow, late=0):
        self._order += 1
        heapq.heappush(self._arrivals, (self.clock.now + self.delay + late, flow, self._order, flight))

    def send_train(self, flight, size, sender="?"):
        """Send the datagrams of *size* bytes, except for the last, that those of *flight* make up."""
        data = flight.datagram
        if 0 < len(data) <= size:
            self.send(flight, sender)
            return
        for at in range(0, len(data), size or 1):
            self.send(dataclasses.replace(flight, datagram=data[at : at + size]), sender)

    def _is_too_big(self, flight):
        """A datagram that may be fragmented is, and is reassembled before it arrives: nothing notices."""
        headers = (20 if len(flight.source) == 2 else 40) + 8 * (flight.protocol == 17)
        return not flight.may_be_cut and len(flight.datagram) + headers > self.mtu

    def next_arrival(self):
        return self._arrivals[0][0] if self._arrivals else math.inf

    def deliver(self):
        """Put what has arrived by now into the sockets that it is for."""
        while self._arrivals and self._arrivals[0][0] <= self.clock.now:
            flight = heapq.heappop(self._arrivals)[3]
            tos = self.mark(flight)
            if tos != flight.tos:
                flight = dataclasses.replace(flight, tos=tos)
            for nat in self.nats.values():
                flight = nat.inside(flight, self.clock.now)
            target = self._socket_at(flight)
            self._note(flight, "arrived" if target else "nobody there")
            if target:
                target.inbox.append(flight)

    def _socket_at(self, flight):
        address, is_handshake = flight.destination, flight.kind in HANDSHAKES
        for node in self.nodes:
            if address[0] in node.addresses:
                for each in reversed(node.sockets):  # the kernel prefers the socket bound last
                    here = (each.port, len(each.sockaddr("::")), each.protocol)
                    is_for = each.receives and (is_handshake or each.role != Role.HANDSHAKES)
                    if here == (address[1], len(address), flight.protocol) and is_for:
                        return each
        return None

    def _note(self, flight, fate):
        self._fates.append((self.clock.now, flight, fate))

    @property
    def trace(self):
        """Return a line for each of the last datagrams."""
        return [
            "{:10.3f}  {}:{} → {}:{}  {} {}  {}".format(
                at, *flight.source[:2], *flight.destination[:2], flight.kind, len(flight.datagram), fate
            )
            for at, flight, fate in self._fates
        ]


class Nat:
    """A router that maps inside addresses to ports of its own, and forgets them after *timeout* seconds of silence."""

    def __init__(self, public, timeout):
        self.public, self.timeout = public, timeout
        self._mappings, self._next = {}, 40_000  # inside address → [outside port, last used]

    def outside(self, source, now):
        mapping = self._mappings.get(source)
        if mapping is None or now - mapping[1] > self.timeout:
            self._next += 1
            mapping = self._mappings[source] = [self._next, now]
        mapping[1] = now
        return (self.public, mapping[0])

    def inside(self, flight, now):
        for source, mapping in self._mappings.items():
            if flight.destination == (self.public, mapping[0]) and now - mapping[1] <= self.timeout:
                mapping[1] = now
                return dataclasses.replace(flight, destination=source)
        return flight


class FakeSocket:
    """A UDP socket bound to every address of its family, with UDP_SEGMENT, UDP_GRO, PKTINFO and TOS."""

    def __init__(self, node, family, port, role=Role.ALL, lane=0):
        self.node, self.family, self.port, self.role, self.lane = node, family, port, role, lane
        self.inbox = deque()
        self.errors = deque()  # the errors of the next sends
        self.sends = 0
        self.options = {}
        self.is_full = self.is_closed = False
        self.dropped = 0  # by the kernel, because there was no room
        self.arrived = 0  # bytes that the kernel says wait, beyond what is in the inbox
        self.protocol, self.receives = 17, True

    def fileno(self):
        return id(self)

    def close(self):
        self.is_closed = True
        self.node.sockets.remove(self)

    def setsockopt(self, level, option, value):
        self.options[level, option] = value

    @property
    def may_be_cut(self):
        """IP_MTU_DISCOVER is DONT or OMIT, or IPV6_MTU is set."""
        return self.options.get((0, 10), 1) in {0, 5} or self.options.get((41, 24), 0) > 0

    @property
    def is_probing(self):
        return 3 in {self.options.get((0, 10)), self.options.get((41, 23))}

    def sockaddr(self, host):
        return (host, self.port) if self.family == socket.AF_INET else (host, self.port, 0, 0)

    def sendmsg(self, buffers, ancillary, flags, address):
        assert not self.is_closed
        assert flags == 0
        data, control = b"".join(buffers), {(level, kind): value for level, kind, value in ancillary}
        if self.errors or self.is_full:
            code = self.errors.popleft() if self.errors else errno.EAGAIN
            raise OSError(code, errno.errorcode[code])
        is_ipv4 = self.family == socket.AF_INET
        if len(address) != len(self.sockaddr("")):
            raise OSError(errno.EAFNOSUPPORT, "EAFNOSUPPORT")
        if is_ipv4:
            local, tos = (
                control.pop((socket.IPPROTO_IP, IP_PKTINFO), None),
                (socket.IPPROTO_IP, socket.IP_TOS),
            )
        else:
            local, tos = control.pop((socket.IPPROTO_IPV6, IPV6_PKTINFO), None), (41, socket.IPV6_TCLASS)
        host = self._local(local, is_ipv4)
        mark = int.from_bytes(control.pop(tos, bytes(4)), "little")
        hops = (socket.IPPROTO_IP, socket.IP_TTL) if is_ipv4 else (41, socket.IPV6_HOPLIMIT)
        ttl = int.from_bytes(control.pop(hops, bytes(4)), "little")
        segment = control.pop((SOL_UDP, UDP_SEGMENT), None)
        size = struct.unpack("=H", segment)[0] if segment else len(data)
        assert not control
        if len(data) > 65507 or len(data) > 64 * size:
            raise OSError(errno.EMSGSIZE, "EMSGSIZE")
        if self.is_probing and len(data) + (28 if is_ipv4 else 48) > self.node.device_mtu:
            raise OSError(errno.EMSGSIZE, "EMSGSIZE")
        self.sends += 1
        train = Flight(self.sockaddr(host), address, data, mark, self.may_be_cut, ttl=ttl)
        self.node.world.network.send_train(train, size, self.node.name)
        return len(data)

    def _local(self, pktinfo, is_ipv4):
        if pktinfo is not None:
            host = _host(bytes(pktinfo[4:8] if is_ipv4 else pktinfo[:16]))
            if host not in self.node.addresses:
                raise OSError(errno.EINVAL, "EINVAL")
            return host
        for host in self.node.addresses:
            if (len(_packed(host)) == 4) == is_ipv4:
                return host
        raise OSError(errno.ENETUNREACH, "ENETUNREACH")

    def recvmsg_into(self, buffers, ancillary_size):
        if not self.inbox:
            raise BlockingIOError(errno.EAGAIN, "EAGAIN")
        first = self.inbox[0]
        size = min(first.segment or len(first.datagram), len(first.datagram))
        limit = max(min(self.node.gro_count, 65535 // size), 1) if self.node.has_gro and size else 1
        joined, count = [], 0
        while self.inbox and count < limit:
            after = self.inbox[0]
            data, own = after.datagram, min(after.segment or len(after.datagram), len(after.datagram))
            if count and (after.head != first.head or not 0 < own <= size):
                break
            # As many as are as long as the first, and one that is shorter, behind which nothing follows
            whole = min(len(data) // size, limit - count) if own == size and size else 1
            taken = data[: whole * own]
            count += whole
            joined.append(taken)
            if len(taken) == len(data):
                self.inbox.popleft()
            else:
                self.inbox[0] = dataclasses.replace(after, datagram=data[len(taken) :])
            if own < size:
                break
        data = b"".join(joined)
        merged = size if count > 1 else 0
        control = [(SOL_UDP, UDP_GRO, struct.pack("=i", merged))] if merged else []
        local = _packed(first.destination[0])
        if self.family == socket.AF_INET:
            control.append((socket.IPPROTO_IP, socket.IP_TOS, bytes([first.tos])))
            control.append((socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 1, local, local)))
        else:
            control.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", first.tos)))
            control.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, struct.pack("=16sI", local, 1)))
        assert sum(socket.CMSG_SPACE(len(value)) for *_, value in control) <= ancillary_size
        fits = data[: len(buffers[0])]
        buffers[0][: len(fits)] = fits
        return len(fits), control, 0 if fits == data else socket.MSG_TRUNC, first.source


class FakePathSocket:
    """Reports what the kernel of *node* knows about paths: 1500 bytes, unless a router said otherwise."""

    def __init__(self, node):
        self.node, self.questions, self.is_closed = node, 0, False

    def mtu_to(self, endpoint):
        assert not self.is_closed
        self.questions += 1
        return self.node.known_mtus.get(endpoint[0], 1500) if self.node.world.network.tells else 0

    def close(self):
        self.is_closed = True


class FakeQueues:
    """The queues of a socket whose datagrams leave immediately."""

    size = 16 * 1024 * 1024

    def __init__(self, raw):
        self.raw = raw

    def waiting(self):
        return 0

    def departed(self):
        return []

    def dropped(self):
        return self.raw.dropped

    def arrived(self):
        return self.raw.arrived


class FakeRaw(FakeSocket):
    """A raw socket of a protocol, with the interface of a carrier: it sends and receives many packets at once."""

    def __init__(self, node, family, protocol, role):
        super().__init__(node, family, 0, role)
        self.protocol = protocol
        self.receives = role == Role.RECEIVES
        self.room = math.inf  # packets that the kernel accepts until it is full

    @property
    def may_be_cut(self):
        return self.role == Role.SENDS

    def send(self, buffers, size, marks, address, *, tells=False):
        assert not self.is_closed
        assert not self.receives
        if self.errors:
            code = self.errors.popleft()
            raise OSError(code, errno.errorcode[code])
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "EAGAIN")
        if len(buffers) == 1:
            packed = bytes(buffers[0])
            sent = [packed[at : at + size] for at in range(0, len(packed), size)]
        else:
            sent = list(map(bytes, buffers))
        sent = sent[: min(self.room, 64)]
        self.room -= len(sent)
        self.sends += 1
        host = self._local(None, self.family == socket.AF_INET)
        for each in sent:
            flight = Flight(
                *(self.sockaddr(host), address, each, marks & 0xFF),
                *(self.may_be_cut, self.protocol, marks >> 8 & 0xFF),
            )
            self.node.world.network.send(flight, self.node.name)
        return len(sent)

    def _next(self, most):
        """Return up to *most* packets that have arrived, each as the kernel delivers it, with its flight."""
        if not self.inbox:
            raise BlockingIOError(errno.EAGAIN, "EAGAIN")
        taken = []
        for _ in range(min(len(self.inbox), most, 64 if self.node.has_gro else 1)):
            flight = self.inbox.popleft()
            data = flight.datagram
            if self.family == socket.AF_INET:
                ends = {"source": flight.source[0], "destination": flight.destination[0]}
                data = packets.ipv4(data, tos=flight.tos, protocol=self.protocol, **ends)
            taken.append((data, flight))
        return taken

    def receive_many(self, most):
        """Return packets as rows of packet, control messages and source."""
        kind = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        return [
            (data, [(*kind, struct.pack("=i", flight.tos))] if self.family == socket.AF_INET6 else [],
             (flight.source[0], 0, *flight.source[2:]))
            for data, flight in self._next(most)
        ]  # fmt: skip

    def receive(self, into):
        taken = self._next(mmsg.MESSAGES)
        for row, (data, flight) in enumerate(taken):
            stride = into.stride
            name = mmsg.pack_sockaddr(flight.source).ljust(into.names.shape[1], b"\0")
            into.names[row] = list(name)
            into.traffic_classes[row] = flight.tos
            into.sizes[row] = len(data)
            fits, rest = data[:stride], data[stride:]
            into.view[row * stride : row * stride + len(fits)] = fits
            more = row * mmsg.REST_BYTES
            into.rest[more : more + len(rest)] = rest
        return len(taken)


class FakeTun:
    """A tun with virtio headers; what is written comes out segmented as by the kernel."""

    def __init__(self):
        self.outgoing, self.received, self.writes = deque(), [], []
        self.error = None

    def readinto(self, buffer):
        if not self.outgoing:
            return None
        data = self.outgoing.popleft()
        buffer[: len(data)] = data
        return len(data)

    def write(self, buffers):
        if self.error:
            raise self.error
        data = b"".join(buffers)
        self.writes.append(data)
        self.received += self.packets_of(data[10:], data[:10])

    packets_of = staticmethod(packets.kernel_segments)


class FakeTap(FakeTun):
    """The same with Ethernet frames."""

    packets_of = staticmethod(packets.kernel_frames)
