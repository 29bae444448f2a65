"""Sending datagrams: many in one call where the kernel cuts them, one by one where it does not.

A send that the kernel cannot take now is kept, with all that come after it, until the socket is writable again.
Meanwhile nothing may be read from the tun: the buffers of what is kept are those the packets were sealed in.
"""

from __future__ import annotations

import errno
import math
import socket
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from overlay.encap import wireguard
from overlay.encap.encapsulation import PROTOCOL_UDP, Role
from overlay.forwarding.marks import IPV6, WHOLE
from overlay.forwarding.pace import Pace
from overlay.wire.icmp import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from overlay.encap.encapsulation import Clear, Encapsulation
    from overlay.forwarding.mmsg import Carrier
    from overlay.forwarding.peer import Ancillary, Peer
    from overlay.wire.addresses import Sockaddr

# A local address or route that is gone; EINVAL is what Linux says for a source that is no address of the host.
_STALE_SOURCE = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV}
)
# A segment larger than the path's MTU; a device that computes no checksums.
_UNCUT = frozenset({errno.EMSGSIZE, errno.EINVAL, errno.EIO, errno.EOPNOTSUPP})

# Specification (Linux include/uapi/linux/in.h, in6.h)
PMTUDISC_DONT, PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE = 0, 1, 2, 3
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 23, 24
_DISCOVER: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_MTU_DISCOVER),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
}
_LARGEST: dict[int, tuple[int, int]] = {
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_MTU)
}  # beyond that the kernel cuts; 0 is never

# Ours
_KIND = WHOLE | IPV6  # what of the marks decides for a raw socket
NO_BUFFERS_PAUSE = 0.001  # seconds; ENOBUFS comes from a device queue, and no event tells when it has drained
KEPT_MESSAGES = 256  # sends kept, from which on a message of our own making is dropped: a timer makes another


class DatagramSocket(Protocol):
    """What the forwarder needs of a UDP socket; socket.socket has it."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def sendmsg(
        self, buffers: Iterable[memoryview | bytes], ancdata: Ancillary, flags: int, address: Sockaddr, /
    ) -> int: ...
    def recvmsg_into(
        self, buffers: Iterable[memoryview], ancbufsize: int, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Sockaddr]: ...


class Outcome(Enum):
    """What became of a send."""

    SENT = auto()
    LATER = auto()  # the kernel is full
    UNCUT = auto()  # this path does not cut: send the datagrams one by one
    LOST = auto()  # counted at the peer
    CUT = auto()  # sent, in fragments, and counted


_SENT = Outcome.SENT  # looked up once: a member of an enumeration is not a plain attribute


@dataclass(eq=False, slots=True)
class UdpSocket:
    """One underlay socket.  *closes_at*: it has been replaced and is only read until then.

    *discover* is its IP_MTU_DISCOVER, but for single sends.
    """

    raw: DatagramSocket
    family: int
    closes_at: float = math.inf
    pace: Pace = field(default_factory=Pace)
    encapsulation: Encapsulation = wireguard.ENCAPSULATION
    role: Role = Role.ALL
    protocol: int = PROTOCOL_UDP
    discover: int = PMTUDISC_WANT
    carrier: Carrier | None = None  # of a raw socket
    clear: Clear | None = field(init=False)

    def __post_init__(self) -> None:
        self.clear = self.encapsulation.clear

    @property
    def _is_switched(self) -> bool:
        """Whether the forwarder changes what may be cut of its datagrams; of others the agent has said it."""
        return self.protocol == PROTOCOL_UDP and self.role in {Role.ALL, Role.SENDS}

    def undo_switches(self) -> None:
        """Have it as the agent opened it, which an earlier forwarder may have switched, and have ended in one send."""
        if self._is_switched:
            self.raw.setsockopt(*_DISCOVER[self.family], PMTUDISC_WANT)
            if self.family in _LARGEST:
                self.raw.setsockopt(*_LARGEST[self.family], 0)
            self.discover = PMTUDISC_WANT

    def learn_mtus(self, learns: bool) -> None:
        """Have routers tell the kernel of every datagram that is too large for them.

        The system's WANT leaves the DF bit out of those that one IPv4 send makes many of, and routers cut them.
        """
        wanted = PMTUDISC_DO if learns else PMTUDISC_WANT
        if self._is_switched and self.family == socket.AF_INET and wanted != self.discover:
            self.raw.setsockopt(*_DISCOVER[self.family], wanted)
            self.discover = wanted


class Sender:
    """The way out to the underlay."""

    def __init__(self, segments: bool) -> None:
        self.segments = segments  # whether UDP_SEGMENT works; a device without checksum offload may refuse it
        self.sockets: list[UdpSocket] = []
        self.waits_for: UdpSocket | None = None  # where something is kept; None if a device's queue was full
        self._kept: deque[tuple[Peer, Sequence[memoryview], int, int, int]] = deque()
        self._pools: dict[UdpSocket, list[UdpSocket]] = {}  # by the first of those that send by flow

    @property
    def is_blocked(self) -> bool:
        """Whether something is kept: then nothing may be read from the tun."""
        return bool(self._kept)

    def socket_for(self, peer: Peer) -> UdpSocket | None:
        """Return the socket to send to *peer* from: where it was heard last, else the first of its family and encapsulation."""
        chosen = peer.socket
        if chosen is not None and chosen.closes_at == math.inf:
            return chosen
        if peer.endpoint is None:
            return None
        family = socket.AF_INET if len(peer.endpoint) == 2 else socket.AF_INET6
        for candidate in self.sockets:
            is_usable = candidate.family == family and candidate.closes_at == math.inf
            if (
                is_usable
                and candidate.role not in {Role.HANDSHAKES, Role.RECEIVES}
                and candidate.encapsulation is peer.encapsulation
            ):
                peer.socket = candidate
                return candidate
        return None

    def send(self, peer: Peer, buffers: Sequence[memoryview], size: int, ecn: int, flow: int = 0) -> None:
        """Send *buffers*, together datagrams of *size* bytes but for the last, to *peer*, or keep them.

        *flow* chooses one of the sockets where the peer's encapsulation sends from several.
        """
        if self._kept or not self._try(peer, buffers, size, ecn, flow):
            self._kept.append((peer, buffers, size, ecn, flow))

    def send_message(self, peer: Peer, datagram: bytes, ecn: int = 0) -> None:
        """Send one datagram of its own, or keep it, unless much is kept already.

        One that is lost costs much more than its bytes: without a hello, say, a second of units.
        """
        if len(self._kept) < KEPT_MESSAGES:
            self.send(peer, [memoryview(datagram)], len(datagram), ecn)
        else:
            peer.drops["send_refused"] += 1

    def send_probe(self, peer: Peer, datagram: bytes) -> bool:
        """Send *datagram* so that nobody on the way cuts it; return False if the host's own device cannot carry it.

        The socket is switched around the one send: another on the port would take arrivals from it.
        """
        error = self._send_under(peer, [datagram], _DISCOVER, PMTUDISC_PROBE)
        return error is None or error.errno != errno.EMSGSIZE

    def send_cuttable(self, peer: Peer, datagram: bytes, ecn: int = 0) -> None:
        """Send *datagram* so that it may be cut: by routers under IPv4, and under IPv6, where they do not, here."""
        target = self.socket_for(peer)
        if target is not None and target.family == socket.AF_INET6:
            self._send_under(peer, [datagram], _LARGEST, IPV6_MINIMUM_MTU, ecn)
        else:
            self._send_under(peer, [datagram], _DISCOVER, PMTUDISC_DONT, ecn)

    def _send_under(
        self,
        peer: Peer,
        datagram: Sequence[memoryview | bytes],
        options: dict[int, tuple[int, int]],
        value: int,
        ecn: int = 0,
        target: UdpSocket | None = None,
    ) -> OSError | None:
        """Make one send with an option of the socket set to *value*, and as it was again; return what failed."""
        target = target or self.socket_for(peer)
        if target is None or peer.endpoint is None:
            peer.drops["no_endpoint"] += 1
            return None
        level, option = options[target.family]
        otherwise = target.discover if options is _DISCOVER else 0
        try:
            target.raw.setsockopt(level, option, value)
            try:
                target.raw.sendmsg(datagram, peer.ancillary(ecn), 0, peer.endpoint)
            finally:
                target.raw.setsockopt(level, option, otherwise)
        except OSError as error:  # a timer, or the packet's sender, tries again
            return error
        peer.tx_bytes += sum(map(len, datagram))
        return None

    def answer(self, via: UdpSocket, datagram: bytes, endpoint: Sockaddr, source: Ancillary) -> bool:
        """Send one datagram to an address that need not be a peer's, from where it called us."""
        try:
            via.raw.sendmsg([datagram], source, 0, endpoint)
        except OSError:
            return False  # what an unknown sender asked for is not worth another attempt
        return True

    def resume(self) -> None:
        """Send what was kept, as far as the kernel takes it."""
        self.waits_for = None
        while self._kept:
            if not self._try(*self._kept[0]):
                return
            self._kept.popleft()

    def forget(self, peer: Peer) -> None:
        """Drop what is kept for a peer that was removed."""
        self._kept = deque(item for item in self._kept if item[0] is not peer)

    def _try(self, peer: Peer, buffers: Sequence[memoryview], size: int, ecn: int, flow: int) -> bool:
        """Send, and return False if the kernel cannot take it now.  Any other failure is counted at the peer."""
        if not peer.has_ports:
            return self._try_raw(peer, buffers, size, ecn)
        total = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        segment = size if total > size else 0
        if segment and not self.segments:
            return self._one_by_one(peer, buffers, size, ecn, flow)
        outcome = self._call(peer, buffers, segment, ecn, flow)
        if outcome is _SENT:
            peer.tx_bytes += total
            return True
        if outcome is Outcome.UNCUT:
            return self._one_by_one(peer, buffers, size, ecn, flow)
        return outcome is not Outcome.LATER

    def _try_raw(self, peer: Peer, buffers: Sequence[memoryview], size: int, marks: int) -> bool:
        """Send from a raw socket, many packets in each call; if the kernel is full in the middle, keep the rest."""
        is_first = True
        while buffers:
            carrier = self._carrier(peer, marks)
            if carrier is None or peer.endpoint is None:
                peer.drops["no_endpoint"] += _count_raw(buffers, size)
                return True
            try:
                sent = carrier.send(buffers, size, marks, peer.endpoint)
            except OSError as error:
                if error.errno in {errno.EAGAIN, errno.ENOBUFS}:
                    self.waits_for = peer.senders[marks & _KIND] if error.errno == errno.EAGAIN else None
                    if is_first:
                        return False
                    self._kept.insert(1 if self._kept else 0, (peer, buffers, size, marks, 0))
                    return True
                if error.errno == errno.EMSGSIZE:
                    peer.path_due = 0.0  # the kernel knows more than we do
                peer.drops["too_big" if error.errno == errno.EMSGSIZE else "send_refused"] += 1
                buffers = _behind(buffers, size, 1)
            else:
                rest = _behind(buffers, size, sent)
                peer.tx_bytes += sum(map(len, buffers)) - sum(map(len, rest))
                buffers = rest
            is_first = False
        return True

    def _carrier(self, peer: Peer, marks: int) -> Carrier | None:
        """Return the raw socket for packets with *marks*: that of its protocol, and for such as may not be cut or may."""
        chosen = peer.senders.get(marks & _KIND)
        if chosen is not None and chosen.closes_at == math.inf:
            return chosen.carrier
        if peer.endpoint is None:
            return None
        family = socket.AF_INET if len(peer.endpoint) == 2 else socket.AF_INET6
        role = Role.SENDS_WHOLE if marks & WHOLE else Role.SENDS
        protocol = peer.encapsulation.protocols[6 if marks & IPV6 else 4]
        for each in self.sockets:
            if (each.encapsulation, each.family, each.role, each.protocol, each.closes_at) == (
                peer.encapsulation,
                family,
                role,
                protocol,
                math.inf,
            ):
                peer.senders[marks & _KIND] = each
                return each.carrier
        return None

    def _one_by_one(self, peer: Peer, buffers: Sequence[memoryview], size: int, ecn: int, flow: int) -> bool:
        """Send each datagram by itself; if the kernel is full in the middle, keep the rest in its place."""
        datagrams = [view[at : at + size] for view in buffers for at in range(0, len(view), size)]
        for number, datagram in enumerate(datagrams):
            outcome = self._call(peer, [datagram], 0, ecn, flow)
            if outcome is Outcome.LATER:
                if number == 0:
                    return False
                self._kept.insert(1 if self._kept else 0, (peer, datagrams[number:], size, ecn, flow))
                return True
            if outcome is Outcome.SENT:
                peer.tx_bytes += len(datagram)
        return True

    def _call(
        self, peer: Peer, buffers: Sequence[memoryview | bytes], segment: int, ecn: int, flow: int
    ) -> Outcome:
        """Make one send, cut into *segment* bytes unless that is 0.  A stale local address is forgotten."""
        target = peer.socket
        if target is None or target.closes_at != math.inf:
            target = self.socket_for(peer)
        if target is None or peer.endpoint is None:
            peer.drops["no_endpoint"] += _count(buffers, segment)
            return Outcome.LOST
        if flow:
            target = self._spread(target, flow)
        control = peer.controls.get((ecn, segment))
        if control is None:
            control = peer.ancillary(ecn, segment)
        try:
            target.raw.sendmsg(buffers, control, 0, peer.endpoint)
        except OSError as error:
            return self._failed(peer, target, buffers, segment, ecn, flow, error)
        return _SENT

    def _spread(self, first: UdpSocket, flow: int) -> UdpSocket:
        """Return the socket for *flow* among those that send as *first* does."""
        pool = self._pools.get(first)
        if pool is None:
            self._pools = {key: each for key, each in self._pools.items() if key.closes_at == math.inf}
            pool = self._pools[first] = [
                udp
                for udp in self.sockets
                if (udp.encapsulation, udp.family, udp.role, udp.closes_at)
                == (first.encapsulation, first.family, first.role, math.inf)
            ]
        return pool[flow % len(pool)]

    def _failed(
        self,
        peer: Peer,
        target: UdpSocket,
        buffers: Sequence[memoryview | bytes],
        segment: int,
        ecn: int,
        flow: int,
        error: OSError,
    ) -> Outcome:
        number = error.errno
        if number in {errno.EAGAIN, errno.ENOBUFS}:
            self.waits_for = target if number == errno.EAGAIN else None
            return Outcome.LATER
        if peer.source and number in _STALE_SOURCE:
            peer.forget_source()
            return self._call(peer, buffers, segment, ecn, flow)
        if segment and number in _UNCUT:
            self.segments = number != errno.EIO
            peer.path_due = 0.0  # the kernel may have learnt that the path takes less
            return Outcome.UNCUT
        if number == errno.EMSGSIZE:
            peer.path_due = 0.0
            # The kernel has learnt that the path takes less: this one it cuts, those that follow will fit.
            if target.discover == PMTUDISC_DO and not self._send_under(
                peer, buffers, _DISCOVER, PMTUDISC_DONT, ecn, target
            ):
                return Outcome.CUT
        peer.drops["too_big" if number == errno.EMSGSIZE else "send_refused"] += _count(buffers, segment)
        return Outcome.LOST


def _count_raw(buffers: Sequence[memoryview], size: int) -> int:
    """Return how many packets *buffers* are, as a carrier understands them."""
    return max(len(buffers), -(-len(buffers[0]) // size))


def _behind(buffers: Sequence[memoryview], size: int, count: int) -> Sequence[memoryview]:
    """Return *buffers*, as a carrier understands them, without the first *count* packets."""
    if len(buffers) == 1 and len(buffers[0]) > size:
        rest = buffers[0][count * size :]
        return [rest] if rest else []
    return buffers[count:]


def _count(buffers: Sequence[memoryview | bytes], segment: int) -> int:
    """Return how many datagrams *buffers* are, cut into *segment* bytes unless that is 0."""
    return -(-sum(map(len, buffers)) // segment) if segment else 1
