"""Sends datagrams: many in one call if the kernel segments them, one by one if it does not.

No peer blocks another.  While much waits in a socket's send buffer, each may only have a share of it (``shares``).  A
send that the kernel cannot accept is copied and held, with all later ones for that peer (``held``), and tried again at
each turn; the tun is read in the meantime.  What is beyond either bound is dropped and counted.
"""

from __future__ import annotations

import errno
import math
import socket
from enum import Enum, auto
from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Role
from overlay.forwarding.path.discovery import DISCOVER, LARGEST
from overlay.forwarding.underlay.datagrams import behind, count, count_all, count_call, count_raw
from overlay.forwarding.underlay.held import Held
from overlay.forwarding.underlay.outer_header import IPV6, WHOLE
from overlay.forwarding.underlay.shares import SEND_COST, Shares
from overlay.host.sockets.queues import TELL
from overlay.linux import PMTUDISC_DO, PMTUDISC_DONT, PMTUDISC_PROBE
from overlay.wire.bulk import TYPE_FRAGMENT
from overlay.wire.ip import IPV6_MINIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.held import Send
    from overlay.forwarding.underlay.mmsg import Carrier
    from overlay.forwarding.underlay.udp_socket import Ancillary, UdpSocket
    from overlay.wire.addresses import Sockaddr

# A local address or route that is gone; EINVAL is what Linux says for a source address that the host does not have.
_STALE_SOURCE = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV}
)
# A segment larger than the path's MTU; a device that computes no checksums.
_UNCUT = frozenset({errno.EMSGSIZE, errno.EINVAL, errno.EIO, errno.EOPNOTSUPP})

# Ours
_KIND = WHOLE | IPV6  # what of the marks decides for a raw socket
HELD_PAUSE = (
    0.001  # seconds; poll tells only when half of a send buffer is free, and of a device's queue nothing
)
LOOK = 16  # sends, of which one asks how much waits: 1 MiB of super-packets


class Outcome(Enum):
    """The outcome of a send."""

    SENT = auto()
    LATER = auto()  # the kernel is full
    UNCUT = auto()  # this path does not segment: send the datagrams one by one
    LOST = auto()  # counted at the peer
    CUT = auto()  # sent, in fragments, and counted


_SENT = Outcome.SENT  # looked up once: a member of an enumeration is not a plain attribute
_NOTHING: tuple[memoryview, ...] = ()


class Sender:
    """The outbound path to the underlay."""

    def __init__(self, segments: bool) -> None:
        self.segments = segments  # whether UDP_SEGMENT works; a device without checksum offload may refuse it
        self.sockets: list[UdpSocket] = []
        self.closes_at = math.inf  # when the next replaced socket does
        self._held: Held[LivePeer] = Held()
        self._crowded: set[UdpSocket] = set()  # those that have shares
        self._sends = 0
        self._pools: dict[UdpSocket, list[UdpSocket]] = {}  # by the first of those that send by flow

    @property
    def is_holding(self) -> bool:
        """Whether something waits for room in the kernel: then resume() is due in HELD_PAUSE."""
        return bool(self._held)

    def use(self, sockets: list[UdpSocket]) -> None:
        """Send from *sockets* from now on, the first that fits a peer, except for those that are to be closed."""
        self.sockets = sockets
        self.closes_at = min((udp.closes_at for udp in sockets), default=math.inf)
        for first in self._pools:
            first.spread_over([])
        self._pools = {}

    def socket_for(self, peer: LivePeer) -> UdpSocket | None:
        """Return the socket to send to *peer* from: where it was heard last, else the first of its family
        and encapsulation.
        """
        chosen = peer.local.socket
        if chosen is not None and chosen.closes_at == math.inf:
            return chosen
        if peer.endpoint is None:
            return None
        family = socket.AF_INET if len(peer.endpoint) == 2 else socket.AF_INET6
        for candidate in self.sockets:
            is_usable = candidate.family == family and candidate.closes_at == math.inf
            if (
                is_usable
                and candidate.role not in {Role.HANDSHAKES, Role.LANE, Role.RECEIVES}
                and not candidate.lane
                and candidate.encapsulation is peer.encapsulation
            ):
                peer.local.socket = candidate
                return candidate
        return None

    def send(
        self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int, flow: int = 0
    ) -> None:
        """Send *buffers*, together datagrams of *size* bytes except for the last, to *peer*, hold a copy, or drop them.

        *flow* chooses one of the sockets where the peer's encapsulation sends from several.
        """
        self._sends += 1
        if not self._sends % LOOK:
            self.look(peer, marks, flow)
        if self._crowded and not self._admits(peer, marks, flow):
            peer.drops.add("send_full", count_all(buffers, size))
        elif not self._held or peer not in self._held:
            rest = self._try(peer, buffers, size, marks, flow)
            if rest:
                self._hold(peer, rest, size, marks, flow)
        else:
            self._hold(peer, buffers, size, marks, flow)

    def refused(
        self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int, flow: int, number: int
    ) -> None:
        """Continue a send of the compiled twin that failed with the error *number*; 0 if it was not tried."""
        target = self._target(peer, marks, flow)
        if not number or target is None or peer in self._held:
            self.send(peer, buffers, size, marks, flow)
            return
        if not peer.has_ports:
            if not _is_lost(peer, number):
                self._hold(peer, buffers, size, marks, flow)
            return
        segment = size if sum(map(len, buffers)) > size else 0
        outcome = self._failed(
            peer, target, buffers, segment, marks, flow, OSError(number, "the kernel did not accept it")
        )
        rest = self._after(outcome, peer, buffers, size, marks, flow)
        if rest:
            self._hold(peer, rest, size, marks, flow)

    def send_message(self, peer: LivePeer, datagram: bytes, marks: int = 0) -> None:
        """Send one datagram of its own, or hold it, however many packets are held already.

        One that is lost costs much more than its bytes: without a hello, say, a second of units.
        """
        if peer not in self._held and not self._try(peer, [memoryview(datagram)], len(datagram), marks, 0):
            return
        if not self._held.add_message(peer, datagram, marks):
            peer.drops.add("send_full")
        peer.state.is_held = True

    def send_probe(self, peer: LivePeer, datagram: bytes) -> bool:
        """Send *datagram* so that no router fragments it; return False if the host's own device cannot carry it.

        The socket is switched around the one send: another on the port would take arrivals from it.
        """
        error = self._send_under(peer, [datagram], DISCOVER, PMTUDISC_PROBE)
        return error is None or error.errno != errno.EMSGSIZE

    def send_cuttable(self, peer: LivePeer, datagram: bytes, marks: int = 0) -> None:
        """Send *datagram* so that it may be cut: by routers under IPv4, and under IPv6, where they do not, here."""
        target = self.socket_for(peer)
        if target is not None and target.family == socket.AF_INET6:
            self._send_under(peer, [datagram], LARGEST, IPV6_MINIMUM_MTU, marks)
        else:
            self._send_under(peer, [datagram], DISCOVER, PMTUDISC_DONT, marks)

    def _send_under(
        self,
        peer: LivePeer,
        datagram: Sequence[memoryview | bytes],
        options: dict[int, tuple[int, int]],
        value: int,
        marks: int = 0,
        target: UdpSocket | None = None,
    ) -> OSError | None:
        """Make one send with an option of the socket set to *value*, and as it was again; return what failed."""
        target = target or self.socket_for(peer)
        if target is None or peer.endpoint is None:
            peer.drops.add("no_endpoint")
            return None
        level, option = options[target.family]
        otherwise = target.discovery.value if options is DISCOVER else 0
        try:
            target.raw.setsockopt(level, option, value)
            try:
                target.raw.sendmsg(datagram, peer.local.ancillary(peer.endpoint, marks), 0, peer.endpoint)
            finally:
                target.raw.setsockopt(level, option, otherwise)
        except OSError as error:  # a timer, or the packet's sender, tries again
            return error
        peer.traffic.tx_bytes += sum(map(len, datagram))
        return None

    def answer(self, via: UdpSocket, datagram: bytes, endpoint: Sockaddr, source: Ancillary) -> bool:
        """Send one datagram to an address that need not be a peer's, from where it called us."""
        try:
            via.raw.sendmsg([datagram], source, 0, endpoint)
        except OSError:
            return False  # a request of an unknown sender is not worth another attempt
        return True

    def resume(self) -> None:
        """Send what is held, as far as the kernel accepts it, peers in turns."""
        waiting = list(self._held)
        self._held.resume(self._try_again)
        for peer in waiting:
            peer.state.is_held = peer in self._held

    def take_departures(self, udp: UdpSocket) -> bool:
        """Learn from the kernel what has left *udp*, and return whether it reported anything."""
        if udp.shares is not None:
            return udp.shares.take_departures()
        # What is told late and left unread would wake the loop forever.
        return udp.queue is not None and bool(udp.queue.departed())

    def forget(self, peer: LivePeer) -> None:
        """Drop what is held for a peer that was removed."""
        self._held.forget(peer)
        peer.state.is_held = False
        for udp in self._crowded:
            assert udp.shares is not None
            udp.shares.forget(peer)

    def leave(self, udp: UdpSocket) -> None:
        """Stop using a socket that has been replaced."""
        self.sockets.remove(udp)
        self.closes_at = min((each.closes_at for each in self.sockets), default=math.inf)
        self._crowded.discard(udp)

    def look(self, peer: LivePeer, marks: int = 0, flow: int = 0) -> None:
        """Keep shares from now on if much waits where *peer* is sent to."""
        target = self._target(peer, marks, flow)
        if target is not None and target.queue is not None and target.shares is None:
            target.shares = Shares.if_crowded(target.queue)
            if target.shares is not None:
                self._crowded.add(target)

    def _admits(self, peer: LivePeer, marks: int, flow: int) -> bool:
        """Return whether *peer* may have more of the send buffer."""
        target = self._target(peer, marks, flow)
        if target is None or target.shares is None:
            return True
        is_admitted = target.shares.admits(peer)
        if target.shares.is_over:
            target.shares.end()
            target.shares = None
            self._crowded.discard(target)
        return is_admitted

    def _target(self, peer: LivePeer, marks: int, flow: int) -> UdpSocket | None:
        """Return the socket that a send to *peer* leaves from."""
        if not peer.has_ports:
            return peer.local.senders.get(marks & _KIND)
        target = peer.local.socket
        if target is None or target.closes_at != math.inf:
            target = self.socket_for(peer)
        return self._spread(target, flow) if flow and target is not None else target

    def _hold(self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int, flow: int) -> None:
        is_unit = peer.clear is None and buffers[0][0] == TYPE_FRAGMENT
        lost = self._held.add(peer, buffers, size, marks, flow, is_unit=is_unit)
        if lost:
            peer.drops.add("send_full", lost)
        peer.state.is_held = peer in self._held

    def _try_again(self, peer: LivePeer, send: Send) -> Sequence[memoryview]:
        return self._try(peer, send.buffers, send.size, send.marks, send.flow)

    def _try(
        self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int, flow: int
    ) -> Sequence[memoryview]:
        """Send, and return what the kernel cannot take now.  Any other failure is counted at the peer."""
        if not peer.has_ports:
            return self._try_raw(peer, buffers, size, marks)
        total = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        segment = size if total > size else 0
        if segment and not self.segments:
            return self._one_by_one(peer, buffers, size, marks, flow)
        outcome = self._call(peer, buffers, segment, marks, flow)
        if outcome is _SENT:
            peer.traffic.tx_bytes += total
            return _NOTHING
        return self._after(outcome, peer, buffers, size, marks, flow)

    def _after(
        self,
        outcome: Outcome,
        peer: LivePeer,
        buffers: Sequence[memoryview],
        size: int,
        marks: int,
        flow: int,
    ) -> Sequence[memoryview]:
        """Do what is left of a send after *outcome*, and return what the kernel cannot take now."""
        if outcome is Outcome.SENT:
            peer.traffic.tx_bytes += sum(map(len, buffers))
        elif outcome is Outcome.UNCUT:
            return self._one_by_one(peer, buffers, size, marks, flow)
        return buffers if outcome is Outcome.LATER else _NOTHING

    def _try_raw(
        self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int
    ) -> Sequence[memoryview]:
        """Send from a raw socket, many packets in each call; if the kernel is full in the middle, return the rest."""
        while buffers:
            carrier = self._carrier(peer, marks)
            if carrier is None or peer.endpoint is None:
                peer.drops.add("no_endpoint", count_raw(buffers, size))
                return _NOTHING
            shares = peer.local.senders[marks & _KIND].shares
            is_told = shares is not None and shares.asks(peer)
            try:
                sent = carrier.send(buffers, size, marks, peer.endpoint, tells=is_told)
            except OSError as error:
                if shares is not None and is_told:
                    shares.failed()
                if not _is_lost(peer, error.errno):
                    return buffers
                buffers = behind(buffers, size, 1)
            else:
                rest = behind(buffers, size, sent)
                total = sum(map(len, buffers)) - sum(map(len, rest))
                peer.traffic.tx_bytes += total
                if shares is not None and is_told and sent < count_call(buffers, size):
                    shares.failed()  # the last, whose departure was to be told, is not among them
                elif shares is not None:
                    shares.sent(peer, total + (sent - 1) * SEND_COST, is_told)
                buffers = rest
        return _NOTHING

    def _carrier(self, peer: LivePeer, marks: int) -> Carrier | None:
        """Return the raw socket for packets with *marks*: that of its protocol,
        and for such as may not be cut or may.
        """
        chosen = peer.local.senders.get(marks & _KIND)
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
                peer.local.send_by(marks & _KIND, each)
                return each.carrier
        return None

    def _one_by_one(
        self, peer: LivePeer, buffers: Sequence[memoryview], size: int, marks: int, flow: int
    ) -> Sequence[memoryview]:
        """Send each datagram by itself; if the kernel is full in the middle, return the rest."""
        datagrams = [view[at : at + size] for view in buffers for at in range(0, len(view), size)]
        for number, datagram in enumerate(datagrams):
            outcome = self._call(peer, [datagram], 0, marks, flow)
            if outcome is Outcome.LATER:
                return datagrams[number:]
            if outcome is Outcome.SENT:
                peer.traffic.tx_bytes += len(datagram)
        return _NOTHING

    def _call(
        self, peer: LivePeer, buffers: Sequence[memoryview | bytes], segment: int, marks: int, flow: int
    ) -> Outcome:
        """Make one send, cut into *segment* bytes unless that is 0.  A stale local address is forgotten."""
        local = peer.local
        target = local.socket
        if target is None or target.closes_at != math.inf:
            target = self.socket_for(peer)
        if target is None or peer.endpoint is None:
            peer.drops.add("no_endpoint", count(buffers, segment))
            return Outcome.LOST
        if flow:
            target = self._spread(target, flow)
        discovery, omits = target.discovery, peer.path.omits
        control = local.controls.get((marks, segment))
        if control is None:
            control = local.ancillary(peer.endpoint, marks, segment)
        shares = target.shares
        is_told = shares is not None and shares.asks(peer)
        if is_told:
            control = [*control, TELL]
        if omits is not discovery.omits:
            discovery.switch(omits)
        try:
            target.raw.sendmsg(buffers, control, 0, peer.endpoint)
        except OSError as error:
            if shares is not None and is_told:
                shares.failed()
            return self._failed(peer, target, buffers, segment, marks, flow, error)
        finally:
            if omits is not discovery.omits:
                discovery.switch(discovery.omits)
        if shares is not None:
            shares.sent(peer, sum(map(len, buffers)), is_told)
        return _SENT

    def _spread(self, first: UdpSocket, flow: int) -> UdpSocket:
        """Return the socket for *flow* among those that send as *first* does."""
        pool = self._pools.get(first)
        if pool is None:
            pool = self._pools[first] = (
                [first, *first.ports]
                if first.role == Role.ALL
                else [
                    udp
                    for udp in self.sockets
                    if (udp.encapsulation, udp.family, udp.role, udp.closes_at)
                    == (first.encapsulation, first.family, first.role, math.inf)
                ]
            )
            first.spread_over(pool)
        return pool[flow % len(pool)]

    def _failed(
        self,
        peer: LivePeer,
        target: UdpSocket,
        buffers: Sequence[memoryview | bytes],
        segment: int,
        marks: int,
        flow: int,
        error: OSError,
    ) -> Outcome:
        number = error.errno
        if number in {errno.EAGAIN, errno.ENOBUFS}:
            return Outcome.LATER
        if peer.local.source and number in _STALE_SOURCE:
            peer.local.forget_source()
            return self._call(peer, buffers, segment, marks, flow)
        if segment and number in _UNCUT:
            self.segments = number != errno.EIO
            peer.path.due = 0.0  # the kernel may have learnt that the path takes less
            return Outcome.UNCUT
        if number == errno.EMSGSIZE:
            peer.path.due = 0.0
            # The kernel has learnt that the path takes less: this one it cuts, those that follow will fit.
            if target.discovery.value == PMTUDISC_DO and not self._send_under(
                peer, buffers, DISCOVER, PMTUDISC_DONT, marks, target
            ):
                return Outcome.CUT
        peer.drops.add("too_big" if number == errno.EMSGSIZE else "send_refused", count(buffers, segment))
        return Outcome.LOST


def _is_lost(peer: LivePeer, number: int | None) -> bool:
    """Return whether a packet that a raw socket refused with an error is lost, and count it then; else it may wait."""
    if number in {errno.EAGAIN, errno.ENOBUFS}:
        return False
    if number == errno.EMSGSIZE:
        peer.path.due = 0.0  # the kernel knows more than we do
    peer.drops.add("too_big" if number == errno.EMSGSIZE else "send_refused")
    return True
