"""From the wire to the tun: open, check, join, write.

One receive gives up to 64 KiB of datagrams of one sender, equal in size but for the last (UDP GRO).  Where they are
transport messages of one keypair, and they nearly always are, the whole lot is opened in place, checked as columns of
a table and written as few super-packets; anything else goes datagram by datagram.
"""

from __future__ import annotations

import socket
import struct
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag

from overlay.errors import PacketError
from overlay.forwarding.bulk.units import (
    LEAD,
    Reassembly,
    WholeUnit,
    ends_of_runs,
    make_for_tun,
    open_unit,
    read_unit,
)
from overlay.forwarding.clear.inbound import ClearInbound
from overlay.forwarding.clear.raw import RawInbound
from overlay.forwarding.nonsense import LEAST_ROW, sort_out
from overlay.forwarding.offload.flow import HEADER_SIZE, OVERHEAD, SEALED, may_go_on
from overlay.forwarding.offload.join import Geometries, Rows
from overlay.forwarding.offload.split import Splitter
from overlay.forwarding.offload.uniform import WORTH, have_syn
from overlay.forwarding.underlay.arrival import Arrival
from overlay.wire.bulk import FRAGMENT_HEADER, FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT
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
from overlay.wire.mss import PROTOCOL_AT, SYN_PROTOCOLS, clamp_mss, may_be_syn
from overlay.wire.virtio import PLAIN, VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.forwarding.bulk.capability import Bulk
    from overlay.forwarding.bulk.units import Partial
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.forwarding.peer import Peer
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.addresses import Sockaddr

# Ours
GATHERED_BYTES = (
    65535 + 64 * 60
)  # of receives in the clear that go on as one: a super-packet and its segments' headers
DRAIN_BYTES = 512 * 1024  # taken in one go before the other direction has its turn
RECEIVE_BYTES = 65535
_TRUNCATED = int(socket.MSG_TRUNC)  # a plain number: members of enumerations are slow
_SLACK = 65536  # behind a receive: the next one, while they come singly; or the rest of the last row
ANCILLARY_BYTES = 256
VIEWS = 256  # (datagram size, count) pairs remembered before starting over
VIEW_ROWS = (
    16_384  # datagrams in all of them: each costs some 600 bytes of views, before anybody is authenticated
)
_NO_INDEX = bytes(4)
# Columns of a row in which packets agree that one look decides for: version and header length, length, source.
_ALIKE = {4: ((16, 17), (18, 20), (28, 32)), 6: ((16, 17), (20, 22), (24, 40))}
_FIRST_WORDS = struct.Struct("<IIQ").unpack_from  # type, receiver index, counter
_HANDSHAKES = frozenset({TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY})


class TunWriter(Protocol):
    """The writing end of the tun: one packet with its virtio header for each call, gathered from buffers."""

    def write(self, buffers: Iterable[memoryview | bytes], /) -> None: ...


class _UnitLayout:
    """A unit that comes whole in one receive: where its headers and its pieces are, and where they go."""

    __slots__ = ("headers", "pieces", "target", "whole")

    def __init__(self, received: Bytes2D, unit: Bytes2D, count: int, stride: int) -> None:
        rows = received[: count * stride].reshape(count, stride)
        width = stride - FRAGMENT_HEADER_SIZE
        self.headers, self.pieces = rows[:, :FRAGMENT_HEADER_SIZE], rows[:, FRAGMENT_HEADER_SIZE:]
        self.whole = WholeUnit(count)
        self.target = unit[LEAD : LEAD + count * width].reshape(count, width)


class Inbound:
    """The receiving half of the packet path."""

    def __init__(self, core: Upcalls, tun: TunWriter, joins_udp: bool, takes_units: bool) -> None:
        self._core, self._tun, self._joins_udp = core, tun, joins_udp
        self._buffer = bytearray(RECEIVE_BYTES + _SLACK)
        self._view = memoryview(self._buffer)
        self._receive_view = self._view[:RECEIVE_BYTES]
        self._array = np.frombuffer(self._buffer, dtype=np.uint8)
        self._geometries = Geometries()
        self.clear: ClearInbound = ClearInbound(core, self._write, joins_udp)
        self.raw = RawInbound(core, self.clear, self._write, joins_udp)
        self._takes_units = takes_units
        unit = bytearray(LEAD + RECEIVE_BYTES + _SLACK)
        self._unit, self._unit_array = memoryview(unit), np.frombuffer(unit, dtype=np.uint8)
        self._unit_layouts: dict[tuple[int, int], _UnitLayout] = {}
        self._reassembly = Reassembly(self._lost)
        self._own_splitter: Splitter | None = None
        self._arrivals: dict[object, Arrival] = {}
        self._views: dict[tuple[int, int], tuple[list[memoryview], list[memoryview], list[memoryview]]] = {}
        self._view_rows = 0

    def drain(self, udp: UdpSocket, now: float, most: int = DRAIN_BYTES) -> bool:
        """Take what *udp* has, a batch of *most* bytes or a little more, and return whether there may be more.

        Datagrams that come singly although they are alike, because a device or a sender does not merge them, are
        gathered behind each other as the kernel would have done it, and taken as one receive.  So are, in the clear,
        receives of merged ones: a super-packet takes two sends, and enters the tun in one write again.
        """
        if udp.carrier is not None:
            return self.raw.drain(udp, now)
        if udp.pace.takes_one(now):
            return self._drain_one(udp, now)
        receive, view = udp.raw.recvmsg_into, self._view
        count = gathered = stride = taken = 0
        held: tuple[Arrival, Sockaddr] | None = None
        is_empty = False
        while taken < most:
            try:
                size, control, flags, source = receive(
                    [view[gathered : gathered + RECEIVE_BYTES]], ANCILLARY_BYTES
                )
            except BlockingIOError:
                is_empty = True
                break
            except OSError:
                # An ICMP error for an earlier datagram, reported here once: nobody has authenticated it.
                self._core.drops["udp_error"] += 1
                taken += stride or OVERHEAD
                continue
            count += 1
            taken += size or OVERHEAD
            if flags & _TRUNCATED:
                self._core.drops["oversized"] += 1
                continue
            arrival = self._arrival(control)
            if held is not None:
                room = GATHERED_BYTES - gathered if arrival.segment else stride
                if 0 < size <= room and arrival is held[0] and source == held[1]:
                    gathered += size
                    is_end = size % stride or (
                        arrival.segment and not may_go_on(view[gathered - stride : gathered])
                    )
                    if is_end or gathered > RECEIVE_BYTES - stride:
                        self._take(udp, gathered, stride, arrival, source, now)
                        gathered, held = 0, None
                    continue
                self._take(udp, gathered, stride, *held, now)
                view[:size] = view[gathered : gathered + size]
                gathered, held = 0, None
            segment = arrival.segment or size
            is_end = arrival.segment and (
                udp.clear is None or size % segment or not may_go_on(view[size - segment : size])
            )
            if is_end or size < OVERHEAD:
                self._take(udp, size, segment, arrival, source, now)
            else:
                gathered, stride = size, segment
                held = arrival, source
        if held is not None:
            self._take(udp, gathered, stride, *held, now)
        udp.pace.took(count)
        return not is_empty

    def _drain_one(self, udp: UdpSocket, now: float) -> bool:
        """Take what one receive gives, and return whether there was anything."""
        try:
            size, control, flags, source = udp.raw.recvmsg_into([self._receive_view], ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._core.drops["udp_error"] += 1
            return True
        if flags & _TRUNCATED:
            self._core.drops["oversized"] += 1
            return True
        arrival = self._arrival(control)
        if arrival.segment or not size or udp.clear is not None:
            self._take(udp, size, arrival.segment or size, arrival, source, now)
        else:
            self._take_one(udp, 0, size, arrival, source, now)
        return True

    def forget_keypair(self, index: int) -> None:
        """Forget what has come of units under a keypair that is gone."""
        self._reassembly.forget_keypair(index)

    def _arrival(self, control: list[tuple[int, int, bytes]]) -> Arrival:
        key = tuple(control)
        arrival = self._arrivals.get(key)
        if arrival is None:
            if len(self._arrivals) >= VIEWS:
                self._arrivals.clear()
            arrival = self._arrivals[key] = Arrival(control)
        return arrival

    def _take(
        self, udp: UdpSocket, size: int, stride: int, arrival: Arrival, source: Sockaddr, now: float
    ) -> None:
        """Take *size* bytes at the start of the buffer: datagrams of *stride* bytes but for the last."""
        if not size:
            self._core.drops["unknown_type"] += 1
            return
        if udp.clear is not None:
            self.clear.take(udp.encapsulation, self._array, self._view, size, stride, arrival, source, now)
            return
        if self._takes_units and self._buffer[0] == TYPE_FRAGMENT and stride > FRAGMENT_HEADER_SIZE:
            if _FIRST_WORDS(self._buffer)[1] in self._core.by_index:
                self._take_fragments(udp, 0, size, stride, arrival, source, now)
                return
        elif OVERHEAD <= stride < size and self._take_table(udp, size, stride, arrival, source, now):
            return
        count = size // stride if stride >= LEAST_ROW else 0
        core, rows = self._core, list(range(count))
        if count > 1:
            table = self._array[: count * stride].reshape(count, stride)
            refused, rows = sort_out(table, core.by_index, takes_units=self._takes_units)
            core.drops.update(refused)
        for row in rows:
            self._take_one(udp, row * stride, stride, arrival, source, now)
        for at in range(count * stride, size, stride):
            self._take_one(udp, at, min(stride, size - at), arrival, source, now)

    def _take_table(
        self, udp: UdpSocket, size: int, stride: int, arrival: Arrival, source: Sockaddr, now: float
    ) -> bool:
        """Open datagrams that are all transport messages of one keypair; return False, with nothing done, if not."""
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
        nonces, sealed, plain = self._table_views(stride, count)
        end = (count - 1) * stride
        sealed[-1] = self._view[end + HEADER_SIZE : end + last]
        plain[-1] = self._view[end + HEADER_SIZE : end + last - TAG_SIZE]
        opened: list[int] = []
        try:
            opened.extend(map(keypair.open, nonces, sealed, repeat(None), plain))
            good = list(range(count))
        except InvalidTag:
            # What came before the forged one is in `opened`; the rest one by one, as an attacker may send many.
            core = self._core
            good = list(range(len(opened)))
            core.refused(keypair.peer, "transport_auth")
            for row in range(len(opened) + 1, count):
                try:
                    keypair.open(nonces[row], sealed[row], None, plain[row])
                    good.append(row)
                except InvalidTag:
                    core.refused(keypair.peer, "transport_auth")
        if not good:
            return True
        fresh = self._fresh(keypair, good, counters)
        if fresh:
            if len(fresh) < count:
                size = sum(last if row == count - 1 else stride for row in fresh)
            self._heard(udp, keypair, arrival, source, size, now)
            if keypair.bulk is not None and is_control(self._view[HEADER_SIZE:]):
                fresh = self._core.in_band.spare(keypair.peer, table[:, HEADER_SIZE], fresh, now)
            if fresh:
                self._deliver_table(keypair, fresh, count, stride, last, arrival, now)
        return True

    def _fresh(self, keypair: Keypair[Peer], rows: list[int], counters: list[int]) -> list[int]:
        """Return the rows whose counters are new, and mark them."""
        window, first = keypair.window, counters[rows[0]]
        total = len(rows)
        if (
            total == len(counters)
            and counters == list(range(first, first + total))
            and window.accept_run(first, total)
        ):
            return rows
        fresh = [row for row in rows if window.accept(counters[row])]
        if len(fresh) < total:
            keypair.peer.drops["replay"] += total - len(fresh)
        return fresh

    def _deliver_table(
        self,
        keypair: Keypair[Peer],
        fresh: list[int],
        count: int,
        stride: int,
        last: int,
        arrival: Arrival,
        now: float,
    ) -> None:
        """Write the packets of the rows *fresh*, joined where they can be."""
        rows = Rows(self._array, self._view, stride, count, last, SEALED, self._geometries)
        mark = arrival.tos & 3
        runs = None if len(fresh) < count or mark in (CE, ECT_1) else rows.runs(self._joins_udp)
        is_alone = len(fresh) == count and last == stride and (runs is None or len(runs) == count)
        if (
            is_alone
            and count >= WORTH
            and not mark
            and self._deliver_uniform(keypair.peer, count, stride, now)
        ):
            return
        if runs is None:
            for row in fresh:
                self._deliver(keypair, row * stride, len(rows.plaintext(row)), arrival, now)
            return
        peer = keypair.peer
        for run in runs:
            if run.count == 1:
                self._deliver(keypair, run.first * stride, len(rows.plaintext(run.first)), arrival, now)
            elif self._core.is_from(peer, rows.plaintext(run.first)):
                peer.traffic.rx_packets += run.count
                self._core.liveness.data_received(peer, now)
                self._write(peer, rows.super_packet(run))
            else:
                peer.drops["source"] += run.count
                self._core.liveness.data_received(peer, now)

    def _deliver_uniform(self, peer: Peer, count: int, stride: int, now: float) -> bool:
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
        core.liveness.data_received(peer, now)
        if not core.is_from(peer, payload):
            core.refused(peer, "source", count)
            return True
        peer.traffic.rx_packets += count
        table[:, HEADER_SIZE - VIRTIO_SIZE : HEADER_SIZE] = 0  # complete as they stand
        for at in range(HEADER_SIZE - VIRTIO_SIZE, count * stride, stride):
            self._write(peer, [self._view[at : at + VIRTIO_SIZE + length]])
        return True

    def _table_views(
        self, stride: int, count: int
    ) -> tuple[list[memoryview], list[memoryview], list[memoryview]]:
        views = self._views.get((stride, count))
        if views is None:
            if len(self._views) >= VIEWS or self._view_rows + count > VIEW_ROWS:
                self._views.clear()
                self._view_rows = 0
            self._view_rows += count
            starts, view = range(0, count * stride, stride), self._view
            views = self._views[stride, count] = (
                [view[at + 4 : at + HEADER_SIZE] for at in starts],
                [view[at + HEADER_SIZE : at + stride] for at in starts],
                [view[at + HEADER_SIZE : at + stride - TAG_SIZE] for at in starts],
            )
        return views

    def _take_one(
        self, udp: UdpSocket, at: int, size: int, arrival: Arrival, source: Sockaddr, now: float
    ) -> None:
        """Take one datagram, whatever it is."""
        core, view = self._core, self._view
        if size >= OVERHEAD:
            kind, index, counter = _FIRST_WORDS(self._buffer, at)
            keypair = core.by_index.get(index)
            if kind == TYPE_TRANSPORT and keypair is not None and now < keypair.reject_at:
                start, end = at + HEADER_SIZE, at + size - TAG_SIZE
                view[at + 4 : at + 8] = _NO_INDEX  # the nonce is this word and the counter behind it
                try:
                    keypair.open(view[at + 4 : start], view[start : at + size], None, view[start:end])
                except InvalidTag:
                    core.refused(keypair.peer, "transport_auth")
                    return
                if not keypair.window.accept(counter):
                    keypair.peer.drops["replay"] += 1
                    return
                self._heard(udp, keypair, arrival, source, size, now)
                self._deliver(keypair, at, end - start, arrival, now)
                return
        kind = message_type(view[at : at + 4]) if size >= 4 else 0
        if kind in _HANDSHAKES:
            core.handshake_received(udp, kind, bytes(view[at : at + size]), source, arrival, now)
        elif self._takes_units and kind & 0xFF == TYPE_FRAGMENT:
            self._take_fragments(udp, at, size, size, arrival, source, now)
        elif kind != TYPE_TRANSPORT:
            core.drops["unknown_type"] += 1
        elif size < OVERHEAD:
            core.drops["transport_short"] += 1
        elif (keypair := core.by_index.get(index)) is None:
            core.drops["unknown_index"] += 1
        else:
            keypair.peer.drops["keypair_expired"] += 1

    def _take_fragments(
        self, udp: UdpSocket, at: int, size: int, stride: int, arrival: Arrival, source: Sockaddr, now: float
    ) -> None:
        """Take datagrams that begin at *at* and are of *stride* bytes but for the last, the first a fragment."""
        count = -(-size // stride)
        last = size - (count - 1) * stride
        if last <= FRAGMENT_HEADER_SIZE:
            end = at + size - last
            if self._buffer[end] == TYPE_FRAGMENT:
                self._core.drops["fragment_short"] += 1
            else:
                self._take_one(udp, end, last, arrival, source, now)
            count, last = count - 1, stride
        if not count:
            return
        if not at and self._buffer[2] == count and not self._reassembly and self._takes_whole(count, stride):
            self._take_whole(udp, count, stride, last, arrival, source, now)
            return
        table = self._array[at : at + count * stride].reshape(count, stride)
        if count == 1:
            self._take_run(udp, at, table, last, arrival, source, now)
            return
        first = 0
        for stop in ends_of_runs(table[:, :FRAGMENT_HEADER_SIZE].view("<u4")):
            start, size = at + first * stride, last if stop == count else stride
            if self._buffer[start] == TYPE_FRAGMENT:
                rows = table[first:stop, :size] if stop == first + 1 else table[first:stop]
                self._take_run(udp, start, rows, size, arrival, source, now)
            else:
                self._take_one(udp, start, size, arrival, source, now)
            first = stop

    def _takes_whole(self, count: int, stride: int) -> bool:
        """Return whether the *count* datagrams at the start of the buffer are one unit, all of it and in order."""
        layout = self._unit_layouts.get((count, stride))
        if layout is None:
            if len(self._unit_layouts) >= VIEWS:
                self._unit_layouts.clear()
            layout = _UnitLayout(self._array, self._unit_array, count, stride)
            self._unit_layouts[count, stride] = layout
        return not self._buffer[1] and layout.whole.are(layout.headers.tobytes())

    def _take_whole(
        self,
        udp: UdpSocket,
        count: int,
        stride: int,
        last: int,
        arrival: Arrival,
        source: Sockaddr,
        now: float,
    ) -> None:
        """Take a unit for which _takes_whole() holds, the last of its datagrams *last* bytes long."""
        _, _, _, cipher, index, counter = FRAGMENT_HEADER.unpack_from(self._buffer)
        keypair = self._core.by_index.get(index)
        if keypair is None:
            self._core.drops["unknown_index"] += count
            return
        try:
            bulk, opener = self._check_unit(keypair, cipher, counter, now)
        except PacketError as error:
            self._core.refused(keypair.peer, error.reason, count)
            return
        layout = self._unit_layouts[count, stride]
        layout.target[:] = layout.pieces
        end = LEAD + (count - 1) * (stride - FRAGMENT_HEADER_SIZE) + last - FRAGMENT_HEADER_SIZE
        try:
            unit = open_unit(opener, counter, self._unit[:end])
        except PacketError as error:
            self._core.refused(keypair.peer, error.reason)
            return
        bulk.window.mark(counter)
        size = (count - 1) * stride + last
        self._take_opened(
            udp, keypair, bulk, counter, count, unit, size, arrival.tos & 3, arrival, source, now
        )

    @staticmethod
    def _check_unit(
        keypair: Keypair[Peer], cipher: int, counter: int, now: float
    ) -> tuple[Bulk, Callable[..., int]]:
        """Return what opens a unit that may be taken.  Raises PacketError."""
        if now >= keypair.reject_at:
            raise PacketError("keypair_expired")
        bulk = keypair.bulk
        opener = bulk.opener(cipher) if bulk is not None and bulk.has_said_hello else None
        if bulk is None or opener is None:
            raise PacketError("unit_unexpected")
        if not bulk.window.check(counter):
            raise PacketError("replay")
        return bulk, opener

    def _take_run(
        self,
        udp: UdpSocket,
        at: int,
        table: Bytes2D,
        last: int,
        arrival: Arrival,
        source: Sockaddr,
        now: float,
    ) -> None:
        """Take consecutive fragments of one unit, the rows of *table*, the last of which has *last* bytes."""
        core, count = self._core, len(table)
        _, number, total, cipher, index, counter = FRAGMENT_HEADER.unpack_from(self._buffer, at)
        keypair = core.by_index.get(index)
        if keypair is None:
            core.drops["unknown_index"] += count
            return
        peer = keypair.peer
        refused = count
        try:
            if number + count > total:
                raise PacketError("fragment_header")
            bulk, opener = self._check_unit(keypair, cipher, counter, now)
            place = (index, counter, source)
            reassembly = self._reassembly
            partial = reassembly.place(
                keypair, place, total, cipher, now, is_at_endpoint=source == peer.endpoint
            )
            partial.is_marked |= arrival.tos & 3 == CE
            if not reassembly.put(
                partial, number, table[:, FRAGMENT_HEADER_SIZE:], last - FRAGMENT_HEADER_SIZE
            ):
                return
            refused = 1
            sealed, partial = reassembly.take(place)
            unit = open_unit(opener, counter, sealed)
            if not bulk.window.accept(counter):
                raise PacketError("replay")
        except PacketError as error:
            core.refused(peer, error.reason, refused)
            return
        mark = CE if partial.is_marked else arrival.tos & 3
        size = len(sealed) - LEAD + total * FRAGMENT_HEADER_SIZE
        self._take_opened(udp, keypair, bulk, counter, total, unit, size, mark, arrival, source, now)

    def _take_opened(
        self,
        udp: UdpSocket,
        keypair: Keypair[Peer],
        bulk: Bulk,
        counter: int,
        fragments: int,
        unit: memoryview,
        size: int,
        mark: int,
        arrival: Arrival,
        source: Sockaddr,
        now: float,
    ) -> None:
        """Take an authentic unit, which came as *size* bytes in *fragments* datagrams."""
        peer = keypair.peer
        bulk.delivered(counter, fragments, now)
        peer.traffic.rx_units += 1
        self._heard(udp, keypair, arrival, source, size, now)
        self._core.liveness.unit_received(peer, keypair)
        self._deliver_unit(peer, unit, bulk.told_packet, mark, now)

    @staticmethod
    def _lost(partial: Partial[Keypair[Peer]]) -> None:
        """Count a unit that was given up incomplete."""
        keypair = partial.keypair
        keypair.peer.drops["unit_incomplete"] += 1
        if keypair.bulk is not None and partial.is_at_endpoint:
            keypair.bulk.missing += partial.missing

    def _deliver_unit(self, peer: Peer, unit: memoryview, most: int, mark: int, now: float) -> None:
        """Write the super-packet of an opened unit, once every claim about it holds."""
        core = self._core
        core.liveness.data_received(peer, now)
        try:
            packet, flow, gso_type, segment = read_unit(unit, most)
            if not core.is_from(peer, packet):
                raise PacketError("source")
            if mark:
                take_outer_ecn(packet, mark)
        except PacketError as error:
            core.refused(peer, error.reason)
            return
        peer.traffic.rx_packets += -(-(len(packet) - flow.size) // segment)
        if flow.protocol == PROTOCOL_UDP and not self._joins_udp:
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

    def _heard(
        self,
        udp: UdpSocket,
        keypair: Keypair[Peer],
        arrival: Arrival,
        source: Sockaddr,
        size: int,
        now: float,
    ) -> None:
        """Note an authenticated receive of *size* bytes: the peer is there, and it is reached where it came from."""
        peer = keypair.peer
        local = peer.local
        peer.traffic.rx_bytes += size
        peer.contact.last_received = now
        if source != peer.endpoint or local.socket is not udp:
            self._core.moved(peer, udp, source, now)
        if arrival.pktinfo != local.received_source:
            local.answer_from(arrival.source, arrival.pktinfo)
        self._core.authenticated(peer, keypair, now)

    def _deliver(self, keypair: Keypair[Peer], at: int, size: int, arrival: Arrival, now: float) -> None:
        """Write the packet in an opened payload of *size* bytes that begins at *at* + 16."""
        core, peer = self._core, keypair.peer
        if not size:
            return  # a keepalive
        start = at + HEADER_SIZE
        payload = self._view[start : start + size]
        if keypair.bulk is not None and is_control(payload):
            core.in_band.take(peer, keypair, payload, now)
            return
        core.liveness.data_received(peer, now)
        try:
            length = packet_length(payload)
            packet = payload[:length]
            if not core.is_from(peer, packet):
                raise PacketError("source")
            if arrival.tos & 3:
                take_outer_ecn(packet, arrival.tos & 3)
        except PacketError as error:
            core.refused(peer, "frame" if is_frame(payload) else error.reason)
            return
        peer.traffic.rx_packets += 1
        protocol = self._buffer[start + PROTOCOL_AT[packet[0] >> 4]]
        if protocol in SYN_PROTOCOLS and may_be_syn(self._buffer, start, start + length):
            clamp_mss(packet, min(peer.path.mtu, core.outbound.splitter.mtu))
        begin = start - VIRTIO_SIZE
        self._view[begin:start] = PLAIN
        self._write(peer, [self._view[begin : start + length]])

    def _write(self, peer: Peer, buffers: list[memoryview | bytes] | list[memoryview]) -> None:
        try:
            self._tun.write(buffers)
        except BlockingIOError:
            peer.drops["tun_full"] += 1
        except OSError:
            peer.drops["tun_refused"] += 1  # the device is down, or the kernel took the packet for malformed
