"""From the wire to the tun: open, check, join, write.

One receive gives up to 64 KiB of datagrams of one sender, equal in size except for the last (UDP GRO).  If they are
transport messages of one keypair, as they nearly always are, all are opened in place, checked as columns of a table and
written as few super-packets; anything else is handled datagram by datagram.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag

from overlay.errors import PacketError
from overlay.forwarding.bulk.inbound import UnitInbound
from overlay.forwarding.bulk.units import make_for_tun, read_unit
from overlay.forwarding.captures import first_of
from overlay.forwarding.clear.inbound import ClearInbound
from overlay.forwarding.clear.raw import RawInbound
from overlay.forwarding.lane.beside import place_of_session
from overlay.forwarding.nonsense import LEAST_ROW, sort_out
from overlay.forwarding.offload.flow import HEADER_SIZE, OVERHEAD, SEALED
from overlay.forwarding.offload.join import Geometries, Rows, Run
from overlay.forwarding.offload.split import Splitter
from overlay.forwarding.offload.uniform import WORTH, have_syn
from overlay.forwarding.tun.gathering import may_go_on, room_behind
from overlay.forwarding.tun.opening import Opening, header_of
from overlay.forwarding.tun.turns import Turns
from overlay.forwarding.underlay.arrival import Arrival
from overlay.forwarding.underlay.crowding import AT_ONCE, pieces_of
from overlay.forwarding.underlay.received import Received
from overlay.wire.bulk import FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT
from overlay.wire.control import is_control
from overlay.wire.frames import is_frame
from overlay.wire.ip import CE, ECT_1, PROTOCOL_UDP, packet_length, take_outer_ecn
from overlay.wire.messages import (
    TAG_SIZE,
    TRANSPORT_HEADER,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
    message_type,
)
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import PLAIN, VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.twin import Twin
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.upcalls import Upcalls

# Ours
DRAIN_BYTES = 512 * 1024  # taken in one go before the other direction has its turn
RECEIVE_BYTES = 65535
_TRUNCATED = int(socket.MSG_TRUNC)  # a plain number: members of enumerations are slow
_SLACK = 65536  # behind a receive: the next one, while they come singly; or the rest of the last row
ANCILLARY_BYTES = 256
ARRIVALS = 256  # kinds of control messages remembered before starting over
_NO_INDEX = bytes(4)
# Columns of a row in which packets agree that are checked together: version and header length, length, source.
_ALIKE = {4: ((16, 17), (18, 20), (28, 32)), 6: ((16, 17), (20, 22), (24, 40))}
_FIRST_WORDS = struct.Struct("<IIQ").unpack_from  # type, receiver index, counter
_HANDSHAKES = frozenset({TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY})


class TunWriter(Protocol):
    """The writing end of the tun: one packet with its virtio header for each call, gathered from buffers."""

    def write(self, buffers: Iterable[memoryview | bytes], /) -> None: ...


class Inbound:
    """The receiving half of the packet path."""

    def __init__(self, core: Upcalls, tun: TunWriter, joins_udp: bool, takes_units: bool) -> None:
        self._core, self._tun, self.joins_udp, self.takes_units = core, tun, joins_udp, takes_units
        self.compiled: Twin | None = None
        received = self.received = Received(RECEIVE_BYTES + _SLACK)
        self._buffer, self._view, self._array = received.buffer, received.view, received.array
        self._receive_view = self._view[:RECEIVE_BYTES]
        self._opening, self._geometries = Opening(core, self._view), Geometries()
        self.clear: ClearInbound = ClearInbound(core, self._write, joins_udp)
        self._turns = Turns(core.drops)
        self.raw = RawInbound(core, self.clear, self._write, joins_udp, self._turns)
        self.units = UnitInbound(core, received, self)
        self._own_splitter: Splitter | None = None
        self._arrivals: dict[object, Arrival] = {}

    def drain(self, udp: UdpSocket, now: float, most: int = DRAIN_BYTES) -> bool:
        """Read what *udp* has, a batch of *most* bytes or a little more, and return whether there may be more.

        Datagrams that come singly although they are alike, because a device or a sender does not merge them, are
        gathered behind each other as the kernel would have done it, and taken as one receive.  So are receives of
        merged ones, in the clear or of messages: a super-packet takes two sends, and enters the tun in one write again.
        """
        if self.compiled is not None and (has_more := self.compiled.drain(udp, now, most)) is not None:
            return has_more
        if udp.carrier is not None:
            return self.raw.drain(udp, now)
        received, receive, view = self.received, udp.raw.recvmsg_into, self._view
        received.udp, received.now = udp, now
        if udp.pace.takes_one(now):
            return self._drain_one(received)
        sessions, is_clear = self._core.by_index, udp.clear is not None
        count = gathered = stride = taken = pieces = is_empty = 0
        udp.crowding.begin(udp.queue, now)
        while taken < most and pieces < AT_ONCE:
            rest = view[gathered : gathered + RECEIVE_BYTES]
            try:
                size, control, flags, source = receive([rest], ANCILLARY_BYTES)
            except BlockingIOError:
                is_empty = 1
                break
            except OSError:  # an ICMP error for an earlier datagram, reported once: not authenticated
                self._core.drops.add("udp_error")
                taken += stride or OVERHEAD
                continue
            count += 1
            taken += size or OVERHEAD
            if flags & _TRUNCATED:
                self._core.drops.add("oversized")
                continue
            arrival = self.arrival(control)
            pieces += pieces_of(size, arrival.segment)
            if gathered:
                room = room_behind(view, gathered, stride, is_clear=is_clear) if arrival.segment else stride
                if 0 < size <= room and arrival is received.arrival and source == received.source:
                    gathered += size
                    is_end = size % stride or gathered > RECEIVE_BYTES - stride
                    if is_end or (
                        arrival.segment and not may_go_on(view, gathered, stride, sessions, is_clear=is_clear)
                    ):
                        self.take(received, gathered, stride)
                        gathered = 0
                    continue
                self.take(received, gathered, stride)
                view[:size] = view[gathered : gathered + size]
            received.arrival, received.source = arrival, source
            gathered, stride = size, arrival.segment or size
            is_end = arrival.segment and not may_go_on(view, size, stride, sessions, is_clear=is_clear)
            if is_end or size < OVERHEAD:
                self.take(received, size, stride)
                gathered = 0
        if gathered:
            self.take(received, gathered, stride)
        udp.pace.took(count)
        return udp.crowding.end(pieces, count, taken, is_behind=not is_empty)

    def _drain_one(self, received: Received) -> bool:
        """Take what one receive gives, and return whether there was anything."""
        udp = received.udp
        udp.crowding.is_behind = False
        try:
            size, control, flags, source = udp.raw.recvmsg_into([self._receive_view], ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._core.drops.add("udp_error")
            return True
        if flags & _TRUNCATED:
            self._core.drops.add("oversized")
            return True
        received.arrival = arrival = self.arrival(control)
        received.source = source
        if arrival.segment or not size or udp.clear is not None:
            self.take(received, size, arrival.segment or size)
        else:
            self.take_one(received, 0, size)
        return True

    def arrival(self, control: list[tuple[int, int, bytes]]) -> Arrival:
        key = tuple(control)
        arrival = self._arrivals.get(key)
        if arrival is None:
            if len(self._arrivals) >= ARRIVALS:
                self._arrivals.clear()
            arrival = self._arrivals[key] = Arrival(control)
        return arrival

    def take(self, received: Received, size: int, stride: int) -> None:
        """Take *size* bytes at the start of the buffer: datagrams of *stride* bytes except for the last."""
        if not size:
            self._core.drops.add("unknown_type")
            return
        received.size, received.stride = size, stride
        if received.udp.crowding.is_behind and self._turns.drop(received, self._sender(received)):
            return
        if received.udp.clear is not None:
            self.clear.take(received)
            return
        if self.takes_units and self._buffer[0] == TYPE_FRAGMENT and stride > FRAGMENT_HEADER_SIZE:
            if _FIRST_WORDS(self._buffer)[1] in self._core.by_index:
                self.units.take(received, 0, size, stride)
                return
        elif OVERHEAD <= stride < size and self._take_table(received):
            return
        count = size // stride if stride >= LEAST_ROW else 0
        core, rows = self._core, list(range(count))
        if count > 1:
            table = self._array[: count * stride].reshape(count, stride)
            refused, rows = sort_out(table, core.by_index, takes_units=self.takes_units)
            for reason, those in refused.items():
                core.drops.add_each(reason, those, lambda row: self._view[row * stride : (row + 1) * stride])
        for row in rows:
            self.take_one(received, row * stride, stride)
        for at in range(count * stride, size, stride):
            self.take_one(received, at, min(stride, size - at))

    def _sender(self, received: Received) -> LivePeer | None:
        """Return whose what was received is, as far as a look can tell; None if it is nobody's."""
        if received.udp.clear is not None:
            return self.clear.first(received)
        index = _FIRST_WORDS(self._buffer)[1] if received.stride >= HEADER_SIZE else 0
        return keypair.peer if (keypair := self._core.by_index.get(index)) is not None else None

    def _take_table(self, received: Received) -> bool:
        """Open datagrams that are all transport messages of one keypair; return False, with nothing done, if not."""
        size, stride, now = received.size, received.stride, received.now
        count = -(-size // stride)
        last = size - (count - 1) * stride
        if last < OVERHEAD:
            return False
        kind, index, _ = TRANSPORT_HEADER.unpack_from(self._buffer)
        keypair = self._core.by_index.get(index)
        if kind != TYPE_TRANSPORT or keypair is None or now >= keypair.reject_at:
            return False
        table = self._array[: count * stride].reshape(count, stride)
        words = table[:, :8].view("<u4")
        if (words != words[0]).any():
            return False
        counters: list[int] = table[:, 8:16].copy().view("<u8")[:, 0].tolist()
        table[:, 4:8] = 0  # the nonce is this word and the counter behind it
        fresh = self._opening.open(keypair, counters, stride, last)
        if fresh:
            if len(fresh) < count:
                size = sum(last if row == count - 1 else stride for row in fresh)
            self.heard(keypair, received, size)
            if keypair.bulk is not None and is_control(self._view[HEADER_SIZE:]):
                fresh = self._core.in_band.spare(keypair.peer, table[:, HEADER_SIZE], fresh, now)
            if fresh:
                self._deliver_table(received, keypair, fresh)
        return True

    def _deliver_table(self, received: Received, keypair: Keypair[LivePeer], fresh: list[int]) -> None:
        """Write the packets of the rows *fresh*, joined where they can be."""
        rows = Rows.of(received, SEALED, self._geometries)
        count, stride, ecn, now = rows.count, rows.stride, received.arrival.ecn, received.now
        runs = None if len(fresh) < count or ecn in (CE, ECT_1) else rows.runs(self.joins_udp)
        is_alone = len(fresh) == count and rows.last == stride and (runs is None or len(runs) == count)
        if (
            is_alone
            and count >= WORTH
            and not ecn
            and self._deliver_uniform(keypair.peer, count, stride, now)
        ):
            return
        if runs is None:
            for row in fresh:
                self.deliver(keypair, row * stride, len(rows.plaintext(row)), ecn, now)
            return
        for run in runs:
            if run.count == 1:
                self.deliver(keypair, run.first * stride, len(rows.plaintext(run.first)), ecn, now)
            else:
                self._deliver_run(keypair.peer, rows, run, now)

    def deliver_run(self, received: Received, keypair: Keypair[LivePeer], run: Run) -> None:
        """Write the super-packet that the rows of *run* make, of opened messages of *received*."""
        self._deliver_run(keypair.peer, Rows.of(received, SEALED, self._geometries), run, received.now)

    def _deliver_run(self, peer: LivePeer, rows: Rows, run: Run, now: float) -> None:
        self._core.liveness.data_received(peer, now)
        if self._core.is_from(peer, rows.plaintext(run.first)):
            peer.traffic.rx_packets += run.count
            self._write(peer, rows.super_packet(run))
        else:
            peer.drops.add("source", run.count, rows.plaintext(run.first))

    def _deliver_uniform(self, peer: LivePeer, count: int, stride: int, now: float) -> bool:
        """Write the packets of *count* rows, each by itself, if they agree in version, length and source.

        Returns False, with nothing done, if they do not.
        """
        payload = self._view[HEADER_SIZE : stride - TAG_SIZE]
        try:
            length = packet_length(payload)
        except PacketError:
            return False
        table = self._array[: count * stride].reshape(count, stride)
        first = table[0]
        for begin, end in _ALIKE[payload[0] >> 4]:
            if (table[:, begin:end] != first[begin:end]).any():
                return False
        if have_syn(table, length):
            return False
        core = self._core
        if not core.owns(peer, payload):
            if core.services.permits:
                return False  # what one of them may do, another may not: their destinations and ports differ
            core.liveness.data_received(peer, now)
            core.refused(peer, "source", count, payload[:length])
            return True
        core.liveness.data_received(peer, now)
        peer.traffic.rx_packets += count
        table[:, HEADER_SIZE - VIRTIO_SIZE : HEADER_SIZE] = 0  # complete as they are
        for at in range(HEADER_SIZE - VIRTIO_SIZE, count * stride, stride):
            self._write(peer, [self._view[at : at + VIRTIO_SIZE + length]])
        return True

    def take_one(self, received: Received, at: int, size: int) -> None:
        """Take one datagram, whatever it is."""
        core, view, now = self._core, self._view, received.now
        if size >= OVERHEAD:
            kind, index, counter = _FIRST_WORDS(self._buffer, at)
            keypair = core.by_index.get(index)
            if kind == TYPE_TRANSPORT and keypair is not None and now < keypair.reject_at:
                start, end = at + HEADER_SIZE, at + size - TAG_SIZE
                view[at + 4 : at + 8] = _NO_INDEX  # the nonce is this word and the counter behind it
                try:
                    keypair.open(view[at + 4 : start], view[start : at + size], None, view[start:end])
                except InvalidTag:
                    core.refused(keypair.peer, "transport_auth", 1, None, header_of(index, counter))
                    return
                if not keypair.window.accept(counter):
                    keypair.peer.drops.add("replay", 1, view[start:end])
                    return
                self.heard(keypair, received, size)
                self.deliver(keypair, at, end - start, received.arrival.ecn, now)
                return
        kind = message_type(view[at : at + 4]) if size >= 4 else 0
        if kind in _HANDSHAKES:
            core.handshake_received(kind, bytes(view[at : at + size]), received)
        elif self.takes_units and kind & 0xFF == TYPE_FRAGMENT:
            self.units.take(received, at, size, size)
        elif kind != TYPE_TRANSPORT:
            core.drops.add("unknown_type", 1, None, view[at : at + size])
        elif size < OVERHEAD:
            core.drops.add("transport_short", 1, None, view[at : at + size])
        elif (keypair := core.by_index.get(index)) is None:
            core.drops.add("unknown_index", 1, None, view[at : at + size])
        else:
            keypair.peer.drops.add("keypair_expired", 1, None, view[at : at + size])

    def deliver_unit(self, peer: LivePeer, unit: memoryview, most: int, ecn: int, now: float) -> None:
        """Write the super-packet of an opened unit, once every claim about it is verified."""
        core = self._core
        core.liveness.data_received(peer, now)
        try:
            packet, flow, gso_type, segment = read_unit(unit, most)
            if not core.is_from(peer, packet):
                raise PacketError("source")
            if ecn:
                take_outer_ecn(packet, ecn)
        except PacketError as error:
            core.refused(peer, error.reason, 1, unit[VIRTIO_SIZE:])
            return
        peer.traffic.rx_packets += -(-(len(packet) - flow.size) // segment)
        if flow.protocol == PROTOCOL_UDP and not self.joins_udp:
            train = self._splitter().split(packet, gso_type, segment, flow.l4)
            for row in train.plain:
                whole: list[memoryview | bytes] = [PLAIN, row[: packet_length(row)]]
                self._write(peer, whole)
            return
        make_for_tun(unit, flow, gso_type, segment)
        self._write(peer, [unit])

    def _splitter(self) -> Splitter:
        """Return a splitter for kernels that take no UDP super-packets."""
        mtu = self._core.outbound.splitter.mtu
        if self._own_splitter is None or self._own_splitter.mtu != mtu:
            self._own_splitter = Splitter(mtu)
        return self._own_splitter

    def heard(self, keypair: Keypair[LivePeer], received: Received, size: int) -> None:
        """Note an authenticated receive of *size* bytes: the peer is there, and reachable at its source."""
        peer = keypair.peer
        local, arrival, now = peer.local, received.arrival, received.now
        peer.traffic.rx_bytes += size
        peer.contact.last_received = now
        session = keypair.session
        source = received.source if session is None else place_of_session(keypair, received.source)
        is_there = source == peer.endpoint and local.socket is received.udp
        is_there = is_there or (source is not None and self._core.moved(peer, received.udp, source, now))
        if arrival.pktinfo != local.received_source and is_there:
            local.answer_from(arrival.source, arrival.pktinfo)
        self._core.authenticated(peer, session or keypair, now)

    def deliver(self, keypair: Keypair[LivePeer], at: int, size: int, ecn: int, now: float) -> None:
        """Write the packet in an opened payload of *size* bytes that begins at *at* + 16."""
        core, peer = self._core, keypair.peer
        if not size:
            return  # a keepalive
        start = at + HEADER_SIZE
        payload = self._view[start : start + size]
        if keypair.bulk is not None and is_control(payload):
            core.in_band.take(peer, keypair, payload, now, self.received.source)
            return
        core.liveness.data_received(peer, now)
        try:
            length = packet_length(payload)
            packet = payload[:length]
            if not core.is_from(peer, packet):
                raise PacketError("source")
            if ecn:
                take_outer_ecn(packet, ecn)
        except PacketError as error:
            core.refused(peer, "frame" if is_frame(payload) else error.reason, 1, payload)
            return
        peer.traffic.rx_packets += 1
        clamp_syn(self._buffer, start, start + length, core.outbound.splitter.mtu, peer.path.mtu)
        begin = start - VIRTIO_SIZE
        self._view[begin:start] = PLAIN
        self._write(peer, [self._view[begin : start + length]])

    def _write(self, peer: LivePeer, buffers: list[memoryview | bytes] | list[memoryview]) -> None:
        try:
            self._tun.write(buffers)
        except BlockingIOError:
            peer.drops.add("tun_full", 1, first_of(buffers, VIRTIO_SIZE))
        except OSError:  # the device is down, or the kernel took the packet for malformed
            peer.drops.add("tun_refused", 1, first_of(buffers, VIRTIO_SIZE))
