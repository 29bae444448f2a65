"""From raw sockets to the tun: packets right behind an outer IP header, or behind that and a header of GRE.

One call of the kernel gives many packets (``mmsg``), rows of one array.  Those of one sender and one tunnel are joined
as datagrams of one receive are; anything else is handled packet by packet.  What is accepted from whom is the same as
for all unencrypted encapsulations: see ``clear.inbound``.
"""

from __future__ import annotations

import socket
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from overlay.errors import PacketError
from overlay.forwarding.clear.inbound import place_of
from overlay.forwarding.offload.flow import Framing
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.offload.partial import virtio_for
from overlay.forwarding.underlay.crowding import AT_ONCE, pieces_of_rows
from overlay.forwarding.underlay.mmsg import (
    LARGEST_ROW,
    MESSAGES,
    REST_BYTES,
    SOCKADDR_IN,
    SOCKADDR_IN6,
    Receipt,
    parse_sockaddr,
)
from overlay.wire.ip import CE, ECT_1, take_outer_ecn
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.clear.inbound import ClearInbound
    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.tun.turns import Turns
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.addresses import Sockaddr

# Ours
DRAIN_BYTES = 512 * 1024  # taken in one go before the other direction gets its turn
LEAST_ROW = 128  # bytes; so that a few tiny packets do not cause all that follow to be copied
SOURCES = 256  # addresses remembered in both forms before starting over
SEQUENCE_LIFE = 3.0  # seconds without a higher number, after which a sender is taken to have restarted


class _Outer(NamedTuple):
    """What packets must have in common to be joined: the source, the traffic class and the size of the outer header."""

    name: bytes
    tos: int
    header: int


class Group:
    """Rows of one receive, as a Receipt has them; of those that are longer than a row, the rest too."""

    def __init__(self, rows: bytes, rest: bytes, sizes: list[int], stride: int) -> None:
        self.view = memoryview(bytearray(rows + bytes(stride)))
        self.array: Bytes2D = np.frombuffer(self.view, np.uint8)
        self.sizes = np.array(sizes, np.uint32)
        self.stride, self._rest = stride, rest

    def packet(self, row: int) -> memoryview:
        """Return the whole packet of *row*, which is longer than that."""
        at, more, size = row * self.stride, row * REST_BYTES, int(self.sizes[row])
        whole = self.view[at : at + self.stride].tobytes()
        return memoryview(bytearray(whole + self._rest[more : more + size - self.stride]))


class RawInbound:
    """Handles what raw sockets receive."""

    def __init__(
        self,
        core: Upcalls,
        clear: ClearInbound,
        write: Callable[[LivePeer, list[memoryview | bytes]], None],
        joins_udp: bool,
        turns: Turns,
    ) -> None:
        self._core, self._clear, self._write, self._joins_udp = core, clear, write, joins_udp
        self._turns = turns
        self._receipt: Receipt | None = None  # some megabytes that other nodes do not need
        self._sources: dict[bytes, Sockaddr] = {}

    def drain(self, udp: UdpSocket, now: float) -> bool:
        """Take what *udp*, a raw socket, has, a batch or a little more, and return whether there may be more."""
        assert udp.carrier is not None
        if self._receipt is None:
            self._receipt = Receipt()
        receipt = self._receipt
        taken = pieces = packets = is_empty = 0
        udp.crowding.begin(udp.queue, now)
        while taken < DRAIN_BYTES and pieces < AT_ONCE and not is_empty:
            try:
                count = udp.carrier.receive(receipt)
            except BlockingIOError:
                is_empty = 1
                break
            except OSError:
                # An ICMP error for an earlier packet, reported here once: it is not authenticated.
                self._core.drops.add("udp_error")
                taken += LARGEST_ROW
                continue
            sizes: list[int] = receipt.sizes[:count].tolist()
            pieces += self._take(udp, receipt, sizes, now)
            if count > 1:
                largest = max((size for size in sizes if size <= LARGEST_ROW), default=receipt.stride)
                receipt.fit(max(largest, LEAST_ROW))
            packets += count
            taken += sum(sizes)
            is_empty = int(count < MESSAGES)
        return udp.crowding.end(pieces, packets, taken, is_behind=not is_empty)

    def take_payload(self, udp: UdpSocket, name: bytes, payload: memoryview, ecn: int, now: float) -> None:
        """Take one payload of who is at *name*, and known to be there."""
        peers = self._clear.peers_at(place_of(udp.encapsulation, self._source(name)))
        self._take_one(udp, peers, payload, ecn, now)

    def take_group(
        self, udp: UdpSocket, group: Group, name: bytes, tos: int, header: int, now: float
    ) -> None:
        """Take rows of one receive with the same outside, from who is at *name*."""
        sizes: list[int] = group.sizes.tolist()
        self._take_group(
            udp, group, _Outer(name, tos, header), 0, sizes, now, fits=max(sizes) <= group.stride
        )

    def _take(self, udp: UdpSocket, receipt: Receipt, sizes: list[int], now: float) -> int:
        """Take one receive: as few groups of rows as can be, in order.  Return how many pieces it was."""
        count, stride = len(sizes), receipt.stride
        if udp.family == socket.AF_INET:
            names = receipt.names[:count, : SOCKADDR_IN.size]
            heads = receipt.array[: count * stride].reshape(count, stride)[:, :2]
        else:
            names = receipt.names[:count, : SOCKADDR_IN6.size]
            heads = receipt.traffic_classes[:count].reshape(count, 1)
        if max(sizes) <= stride and not (names != names[0]).any() and not (heads != heads[0]).any():
            return self._take_new(udp, receipt, _outer(names[0], heads[0]), 0, sizes, now, fits=True)
        pieces = 0
        outers = [_outer(names[row], heads[row]) for row in range(count)]
        for (outer, fits), rows in groupby(range(count), lambda row: (outers[row], sizes[row] <= stride)):
            group = list(rows)
            of_group = sizes[group[0] : group[-1] + 1]
            pieces += self._take_new(udp, receipt, outer, group[0], of_group, now, fits=fits)
        return pieces

    def _take_new(
        self,
        udp: UdpSocket,
        receipt: Receipt,
        outer: _Outer,
        first: int,
        sizes: list[int],
        now: float,
        *,
        fits: bool,
    ) -> int:
        """Take rows as _take_group() does, unless they are too much now.  Return how many pieces they are."""
        pieces = pieces_of_rows(sizes)
        if udp.crowding.is_behind:
            peers = self._clear.peers_at(place_of(udp.encapsulation, self._source(outer.name)))
            if peers and not self._turns.admits(udp.crowding, peers[0].number, pieces, now):
                at = first * receipt.stride
                begin = receipt.view[at + outer.header : at + min(sizes[0], receipt.stride)]
                peers[0].drops.add("crowded", len(sizes), None, begin)
                return pieces
        self._take_group(udp, receipt, outer, first, sizes, now, fits=fits)
        return pieces

    def _take_group(
        self,
        udp: UdpSocket,
        receipt: Receipt | Group,
        outer: _Outer,
        first: int,
        sizes: list[int],
        now: float,
        *,
        fits: bool,
    ) -> None:
        """Take the rows from *first* on, of *sizes* bytes, of one sender; either all or none fit into their rows."""
        source = self._source(outer.name)
        peers = self._clear.peers_at(place_of(udp.encapsulation, source))
        count, ecn = len(sizes), outer.tos & 3
        if not peers:
            self._core.drops.add("outer_source", count)
            return
        # A congestion mark changes packets one by one.
        is_alike = fits and count > 1 and ecn not in {CE, ECT_1}
        if is_alike and self._take_alike(udp, receipt, outer, first, sizes, peers, now):
            return
        for row, size in enumerate(sizes, first):
            packet = (
                receipt.view[row * receipt.stride : row * receipt.stride + size]
                if fits
                else receipt.packet(row)
            )
            self._take_one(udp, peers, packet[outer.header :], ecn, now)

    def _take_alike(
        self,
        udp: UdpSocket,
        receipt: Receipt | Group,
        outer: _Outer,
        first: int,
        sizes: list[int],
        peers: list[LivePeer],
        now: float,
    ) -> bool:
        """Take rows of one tunnel, joined where they can be; return False, with nothing done,
        if they are not of one.
        """
        count, stride = len(sizes), receipt.stride
        start = first * stride
        array, view = receipt.array[start:], receipt.view[start:]
        found = self._tunnel(udp, peers, view[outer.header : sizes[0]])
        if found is None or min(sizes) < outer.header + len(found[1]) + 40:
            return False
        version, prefix = found
        before = outer.header + len(prefix)
        table = array[: count * stride].reshape(count, stride)
        if prefix and (table[:, outer.header : before] != np.frombuffer(prefix, np.uint8)).any():
            return False
        if min(sizes[:-1]) < stride:
            for row, size in enumerate(sizes[:-1]):
                table[row, size:] = 0
        at = before + (2 if version == 4 else 4)
        room = receipt.sizes[first : first + count] - (before if version == 4 else before + 40)
        if (table[:, at : at + 2].copy().view(">u2")[:, 0] > room).any():
            return False  # truncated somewhere
        rows = Rows(array, view, stride, count, sizes[-1], Framing(before, 0, pads=False))
        runs = rows.runs(self._joins_udp)
        if runs is None:
            return False
        ecn = outer.tos & 3
        for run in runs:
            at, size = run.first * stride, sizes[run.first]
            if run.count == 1:
                self._take_one(udp, peers, view[at + outer.header : at + size], ecn, now)
                continue
            candidates = [each for each in peers if each.tunnel.prefix[version] == prefix]
            peer = self._clear.sender(candidates, view[at + before : at + size])
            if peer is None:
                candidates[0].drops.add("source", run.count, view[at + before : at + size])
                continue
            peer.traffic.rx_packets += run.count
            peer.traffic.rx_bytes += sum(sizes[run.first : run.first + run.count]) - run.count * outer.header
            peer.contact.last_received = now
            self._write(peer, rows.super_packet(run))
        return True

    @staticmethod
    def _tunnel(udp: UdpSocket, peers: list[LivePeer], payload: memoryview) -> tuple[int, bytes] | None:
        """Return IP version and prefix of *payload* if they are just what one of *peers* is to send."""
        for version, protocol in udp.encapsulation.protocols.items():
            if protocol != udp.protocol:
                continue
            for peer in peers:
                if peer.tunnel.is_finished:
                    continue  # no two payloads begin alike
                prefix = peer.tunnel.prefix[version]
                start = payload[: len(prefix) + 1]
                if len(start) > len(prefix) and start[:-1] == prefix and start[-1] >> 4 == version:
                    return version, prefix
        return None

    def _take_one(
        self, udp: UdpSocket, peers: list[LivePeer], payload: memoryview, ecn: int, now: float
    ) -> None:
        clear, encapsulation = udp.clear, udp.encapsulation
        assert clear is not None
        blamed = peers[0]
        try:
            start, end, identifier = clear.strip(payload)
            packet = payload[start:end]
            if encapsulation.protocols[packet[0] >> 4] != udp.protocol:
                raise PacketError("inner_version")
            candidates = [each for each in peers if each.tunnel.ends.identifier == identifier]
            if not candidates:
                raise PacketError(clear.mismatch)
            blamed = candidates[0]
            peer = self._clear.sender(candidates, packet)
            if peer is None:
                raise PacketError("source")
            blamed = peer
            if ecn:
                take_outer_ecn(packet, ecn)
            mtu = self._core.outbound.splitter.mtu
            header = virtio_for(peer, packet, mtu)
            number = clear.sequence(payload) if clear.sequence is not None else None
            if number is not None:
                _check_sequence(peer, number, now, clear.late)
        except PacketError as error:
            blamed.drops.add(error.reason, 1, None, payload)
            return
        clamp_syn(packet, 0, len(packet), mtu, peer.path.mtu, is_partial=header is not PLAIN)
        peer.traffic.rx_packets += 1
        peer.traffic.rx_bytes += len(payload)
        peer.contact.last_received = now
        self._write(peer, [header, packet])

    def _source(self, name: bytes) -> Sockaddr:
        source = self._sources.get(name)
        if source is None:
            if len(self._sources) >= SOURCES:
                self._sources.clear()
            source = self._sources[name] = parse_sockaddr(name)
        return source


def _outer(name: Bytes2D, head: Bytes2D) -> _Outer:
    """Return what stands outside, from an IPv4 header's first two bytes or an IPv6 header's traffic class."""
    if len(head) == 1:
        return _Outer(name.tobytes(), int(head[0]), 0)
    return _Outer(name.tobytes(), int(head[1]), (int(head[0]) & 15) * 4)


def _check_sequence(peer: LivePeer, number: int, now: float, late: str) -> None:
    """Note the number of a packet of *peer*.  Raises PacketError *late* for one that is not above the last (RFC 2890).

    Numbers begin at zero again behind 2**32, and with a sender that starts again.
    """
    last = peer.unsealed.sequence
    if (
        last >= 0
        and now - peer.unsealed.sequence_at < SEQUENCE_LIFE
        and not 0 < (number - last) % 2**32 < 2**31
    ):
        raise PacketError(late)
    peer.unsealed.sequence, peer.unsealed.sequence_at = number, now
