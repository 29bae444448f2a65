"""Drains by the compiled twin, and the handling of what it hands back (``native/native.h``).

The twin handles what is ordinary: packets and units of established sessions with peers that did not move.  It works in
the same buffers and on the same state; whatever it hands back, the Python path handles as if it had read it itself.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from overlay.errors import PacketError
from overlay.forwarding.clear.raw import Group
from overlay.forwarding.clear.source_ranges import SourceRanges
from overlay.forwarding.offload.flow import HEADER_SIZE
from overlay.forwarding.offload.join import Run
from overlay.link.messages import OWN
from overlay.link.service_messages import VIRTUAL
from overlay.wire.ip import IPV6_HEADER_SIZE
from overlay.wire.virtio import VIRTIO_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.bulk.reassembly import Place
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.tun.inbound import Inbound
    from overlay.forwarding.tun.outbound import Outbound
    from overlay.forwarding.twin import TunReader
    from overlay.forwarding.underlay.udp_socket import UdpSocket
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.ip import Buffer

# native/native.h: out_result, in_result and edge; module.h: HAS_NEWS
OUT_DONE, OUT_PACKET, OUT_EDGE, OUT_ERROR, OUT_UNKNOWN = range(5)
(
    IN_DONE, IN_EMPTY, IN_RECEIVED, IN_OPENED, IN_RUN, IN_UNIT, IN_EDGE, IN_CLEAR, IN_CLEAR_RUN, IN_ROW, IN_RAW,
    IN_RAW_GROUP,
) = range(12)  # fmt: skip
EDGE_SENT, EDGE_UNITS, EDGE_ANSWER, EDGE_REPORT = 1, 2, 4, 8
HAS_NEWS = 16
RESULT = HAS_NEWS - 1
MARKS = (1 << 24) - 1  # of what goes with a send; above is its flow
FLOW_SHIFT = 24
HEAD = 128  # bytes of a packet that are kept: IP, TCP

_CONTROL = struct.Struct("=Qii")  # struct cmsghdr of 64-bit Linux, whose parts begin at multiples of 8
_SOCKADDR_IN6 = struct.Struct("=H2s4s16sI")  # struct sockaddr_in6
SENDERS = 1024  # remembered before starting over


class CompiledPartial:
    """A unit that waits in the twin, in place of ``bulk.reassembly.Partial``."""

    __slots__ = ("is_marked", "number")

    def __init__(self, number: int) -> None:
        self.number, self.is_marked = number, False


class CompiledReassembly:
    """The incomplete units that the twin keeps, in place of ``bulk.reassembly.Reassembly``.

    Some fragments arrive through Python.
    """

    def __init__(self, lane: Any, unit: memoryview, take_news: Callable[[], None]) -> None:
        self._lane, self._unit, self._take_news = lane, unit, take_news
        self._placed: CompiledPartial | None = None

    def __len__(self) -> int:
        return int(self._lane.waiting())

    def place(
        self,
        keypair: Keypair[LivePeer],
        place: Place,
        count: int,
        cipher: int,
        now: float,
        *,
        is_at_endpoint: bool,
    ) -> CompiledPartial:
        """Return the unit that a fragment belongs to; as Reassembly.place()."""
        number = self._lane.place(keypair, place[1], count, cipher, now, is_at_endpoint)
        self._take_news()
        if number < 0:
            raise PacketError("fragment_header")
        self._placed = CompiledPartial(number)
        return self._placed

    def put(self, partial: CompiledPartial, number: int, rows: Bytes2D, last: int) -> bool:
        """Add consecutive fragments; as Reassembly.put()."""
        is_whole = self._lane.put(partial.number, number, rows.tobytes(), len(rows), last, partial.is_marked)
        if is_whole is None:
            raise PacketError("fragment_size")
        return bool(is_whole)

    def take(self, _: Place) -> tuple[memoryview, CompiledPartial]:
        """Return the unit that was placed last, which is whole, and forget it; as Reassembly.take()."""
        partial = self._placed
        assert partial is not None
        end, partial.is_marked = self._lane.take(partial.number)
        if not end:
            raise PacketError("fragment_size")
        return self._unit[:end], partial

    def forget_keypair(self, index: int) -> None:
        """Do nothing: the twin forgets units with their keypair."""


def _nothing() -> None:
    """Do nothing: there are no other lanes to stop."""


class Compiled:
    """The twin at work for *core*: one lane, which reads and writes packets through the descriptors *tun*."""

    def __init__(
        self, lane: Any, core: Upcalls, outbound: Outbound, inbound: Inbound, tun: tuple[int, int]
    ) -> None:
        """*lane* has the buffers of *outbound* and *inbound*."""
        self.lane = lane
        self.stop: Callable[[], None] = _nothing
        """Has other lanes at no work, until packets are waited for again:
        before anything but the twin touches the state.
        """
        self._core, self._outbound, self._inbound, self._tun = core, outbound, inbound, tun
        self._reassembly = inbound.units.reassembly = CompiledReassembly(
            lane, inbound.units.unit_view, self.take_news
        )
        core.captures.watch_lane(lane)
        self._settings: tuple[tuple[int, int], int, bool, bool] | None = None
        self._remembered: object = None
        self._returning: object = None
        self._ranges = inbound.clear.ranges = SourceRanges(core)
        self._senders: dict[bytes, Sockaddr] = {}

    def drain_tun(self, tun: TunReader, now: float) -> None:
        """Forward what is in the tun, at most a batch.  Raises OSError as a read does."""
        self.settle()
        self.see_to_tun(self.lane.drain_tun(now), tun, now)

    def see_to_tun(self, result: int, tun: TunReader, now: float) -> None:
        """Handle the *result* of a drain, and continue it.  Raises OSError as a read does."""
        core, lane = self._core, self.lane
        told: int | None = result
        while True:
            result, told = lane.drain_tun(now) if told is None else told, None
            if result & HAS_NEWS:
                self.take_news()
            kind = result & RESULT
            if kind == OUT_DONE:
                return
            self.stop()
            if kind == OUT_UNKNOWN:
                self._look_up(tun, now)
                continue
            if kind == OUT_PACKET:
                self._go_on(tun, now)
                return
            if kind != OUT_EDGE:
                raise OSError(lane.error(), "the tun cannot be read")
            number, keypair, edges = lane.edge()
            peer = core.peers.get(number)
            if peer is not None and edges & EDGE_UNITS:
                core.liveness.units_sent(peer, keypair.bulk)
            if peer is not None and edges & EDGE_SENT:
                core.liveness.after_send(peer, keypair, now)

    def _go_on(self, tun: TunReader, now: float) -> None:
        """Forward a packet that is not ordinary, and similar ones that follow it, which may leave with it."""
        at, size, is_alone, is_first = self.lane.packet()
        at = self._bring_packet(at, size)
        head = self._head(at, size)
        self.lane.took(self._outbound.go_on(tun, at, size, now, is_alone=is_alone, is_first=is_first))
        self._remember(head)

    def _look_up(self, tun: TunReader, now: float) -> None:
        """Forward one packet to a virtual address whose flow the twin does not remember, and let it remember
        the flow.
        """
        at, size, _, _ = self.lane.packet()
        at = self._bring_packet(at, size)
        head = self._head(at, size)
        self._outbound.go_on(tun, at, size, now, is_alone=True)
        self._remember(head)

    def _bring_packet(self, at: int, size: int) -> int:  # noqa: ARG002
        """Place a packet of the lane's arena in that of `outbound`, and return where; here it is already there."""
        return at

    def _head(self, at: int, size: int) -> bytes:
        """Return a copy of the beginning of the packet in the arena that a read has put *at*, before it is sealed."""
        start = at + HEADER_SIZE
        return bytes(self._outbound.arena[start : start + min(size - VIRTIO_SIZE, HEAD)])

    def flush_peer(self, peer: LivePeer) -> None:
        """Send what waits for *peer* until the end of the batch."""
        if self.lane.flush(peer.state) & HAS_NEWS:
            self.take_news()

    def drain(self, udp: UdpSocket, now: float, most: int) -> bool | None:
        """Take what *udp* has, about *most* bytes or a batch, and return whether there may be more.

        Returns None and takes nothing if this path does not know its kind of datagrams.
        """
        if udp.descriptor < 0 or (udp.clear is not None and not udp.layout):
            return None
        self.settle()
        if udp.carrier is not None:
            return self._drain_raw(udp, now)
        return self.see_to_udp(self.lane.drain_udp(udp, now, most), udp, now, most)

    def see_to_udp(self, result: int, udp: UdpSocket, now: float, most: int) -> bool:
        """Handle the *result* of a drain, and continue it; return whether there may be more."""
        inbound, lane = self._inbound, self.lane
        received = inbound.received
        received.udp, received.now = udp, now
        told: int | None = result
        while True:
            result, told = lane.drain_udp(udp, now, most) if told is None else told, None
            if result & HAS_NEWS:
                self.take_news()
            kind = result & RESULT
            if kind <= IN_EMPTY:
                return bool(kind == IN_DONE)
            self.stop()
            keypair, at, size, count, stride, ecn, edges = lane.received()
            if kind == IN_RECEIVED:
                self._take_arrival()
                self._bring(0, size)
                inbound.take(received, size, stride)
                continue
            if kind == IN_ROW:
                self._take_arrival()
                self._bring(at, at + size)
                inbound.take_one(received, at, size)
                continue
            if kind >= IN_CLEAR:
                self._take_arrival()
                self._bring(0, at + size if kind == IN_CLEAR else size)
                received.size, received.stride = size, stride
                if kind == IN_CLEAR:
                    payload = received.view[at : at + size]
                    inbound.clear.take_payload(received, payload)
                else:
                    payload = received.view[at * stride : (at + 1) * stride]
                    inbound.clear.take_run(received, Run(at, count))
                self._remember_sender(udp, payload)
                continue
            peer = keypair.peer
            if edges & EDGE_REPORT:
                self._core.liveness.unit_received(peer, keypair)
            if edges & EDGE_ANSWER:
                self._core.liveness.after_receipt(peer, now)
            if kind == IN_OPENED:
                self._take_arrival()
                self._bring(at, at + HEADER_SIZE + size)
                inbound.deliver(keypair, at, size, received.arrival.ecn, now)
                self._remember_source(peer, received.view[at + HEADER_SIZE : at + HEADER_SIZE + size])
            elif kind == IN_RUN:
                self._take_arrival()
                self._bring(0, size)
                received.size, received.stride = size, stride
                inbound.deliver_run(received, keypair, Run(at, count))
                start = at * stride + HEADER_SIZE
                self._remember_source(peer, received.view[start : start + stride])
            elif kind == IN_UNIT:
                self._bring_unit(size)
                self._take_unit(keypair, size, ecn, now)

    def _bring(self, start: int, stop: int) -> None:
        """Place a part of what the lane has received in the buffer of `inbound`; here it is already there."""

    def _bring_unit(self, stop: int) -> None:
        """Place the unit that the lane has opened in the buffer of `inbound`; here it is already there."""

    def _take_unit(self, keypair: Keypair[LivePeer], size: int, ecn: int, now: float) -> None:
        """Deliver the unit that the twin has opened, and tell it the owner of its source."""
        assert keypair.bulk is not None
        unit = self._inbound.units.unit_view[:size]
        self._inbound.deliver_unit(keypair.peer, unit, keypair.bulk.told_packet, ecn, now)
        self._remember_source(keypair.peer, unit[VIRTIO_SIZE:])

    def _drain_raw(self, udp: UdpSocket, now: float) -> bool:
        """Take what *udp*, a raw socket, has, a batch or a little more, and return whether there may be more."""
        lane, raw = self.lane, self._inbound.raw
        while True:
            result = lane.drain_raw(udp, now)
            if result & HAS_NEWS:
                self.take_news()
            kind = result & RESULT
            if kind <= IN_EMPTY:
                return bool(kind == IN_DONE)
            if kind == IN_RAW:
                payload, name, ecn = lane.raw_row()
                payload = memoryview(bytearray(payload))
                raw.take_payload(udp, name, payload, ecn, now)
            else:
                rows, rest, sizes, stride, name, tos, header = lane.raw_group()
                group = Group(rows, rest, sizes, stride)
                raw.take_group(udp, group, name, tos, header, now)
                payload = group.view[header : sizes[0]]
            self._remember_sender(udp, payload)

    def settle(self) -> None:
        """Tell the twin the current settings, and forget the routes of an older table."""
        core = self._core
        settings = self._tun, self._outbound.splitter.mtu, core.sender.segments, core.node.inherits_ttl
        if settings != self._settings:
            self.stop()
            self._settings = settings
            self.lane.set(*settings[0], *settings[1:], self._inbound.joins_udp, self._inbound.takes_units)
        returning = core.services.permits.returning
        if core.table.remembered is not self._remembered or returning is not self._returning:
            self.stop()
            self._remembered, self._returning = core.table.remembered, returning
            self.lane.forget()
            self._ranges.forget()

    def take_news(self) -> None:
        """Count drops, and let the sender send what the kernel did not accept from the twin."""
        core, lane = self._core, self.lane
        for number, reason, count in lane.take_drops():
            if number <= OWN:
                core.drops[reason] += count
            elif number in core.peers:
                core.peers[number].drops[reason] += count
        if core.captures.is_on:
            core.captures.take_captured(lane)
        refused = lane.take_refused()
        if refused:
            self.stop()
        for number, datagrams, size, marks, error in refused:
            if number in core.peers:
                send = [memoryview(datagrams)], size, marks & MARKS, marks >> FLOW_SHIFT
                core.sender.refused(core.peers[number], *send, error)
        number, marks = lane.take_look()
        if number in core.peers:
            self.stop()
            core.sender.look(core.peers[number], marks & MARKS, marks >> FLOW_SHIFT)

    def _remember(self, packet: bytes) -> None:
        """Tell the twin which peer *packet* goes to, if the table or a service has just said so."""
        address = _address_of(packet, 16, 24)
        peer = self._core.table.remembered.get(address)
        if peer is not None and peer.number > OWN:
            self.lane.remember(address, peer.state)
        elif peer is not None and peer.number == VIRTUAL:
            self.lane.remember_virtual(address)
            self._core.services.remember(peer, packet)

    def _remember_source(self, peer: LivePeer, packet: memoryview) -> None:
        """Tell the twin that *packet* may come from *peer*, if it may."""
        address = _address_of(packet, 12, 8)
        owner = self._core.table.remembered.get(address)
        if owner is peer:
            self.lane.remember(address, peer.state)
        elif address and self._core.services.permits:
            self._core.services.remember_admitted(peer, packet)

    def _remember_sender(self, udp: UdpSocket, payload: memoryview) -> None:
        """Tell the twin the owner of the source of the packet in an unencrypted *payload*."""
        assert udp.clear is not None
        try:
            start, end, _ = udp.clear.strip(payload)
        except PacketError:
            return
        packet = payload[start:end]
        owner = self._core.table.remembered.get(_address_of(packet, 12, 8))
        if owner is not None and owner.number > OWN:
            self._remember_source(owner, packet)

    def _take_arrival(self) -> None:
        """Take over what the twin received last, as if it had been received in Python."""
        received = self._inbound.received
        control, source = self.lane.arrival()
        parts, at = [], 0
        while at + _CONTROL.size <= len(control):
            length, level, kind = _CONTROL.unpack_from(control, at)
            parts.append((level, kind, control[at + _CONTROL.size : at + length]))
            at += -(-length // 8) * 8
        received.arrival = self._inbound.arrival(parts)
        sender = self._senders.get(source)
        if sender is None:
            if len(self._senders) >= SENDERS:
                self._senders.clear()
            sender = self._senders[source] = _sender(source)
        received.source = sender


def _address_of(packet: Buffer, at_v4: int, at_v6: int) -> bytes:
    """Return the address at one of the two places of *packet*; nothing if it is not a packet."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return bytes(packet[at_v4 : at_v4 + 4])
    if len(packet) >= IPV6_HEADER_SIZE and packet[0] >> 4 == 6:
        return bytes(packet[at_v6 : at_v6 + 16])
    return b""


def _sender(source: bytes) -> Sockaddr:
    """Return the address in a struct sockaddr as the socket module has it."""
    family, port = int.from_bytes(source[:2], sys.byteorder), int.from_bytes(source[2:4], "big")
    if family == socket.AF_INET:
        return str(ip_address(source[4:8])), port
    _, _, flow, address, scope = _SOCKADDR_IN6.unpack_from(source)
    return str(ip_address(address)), port, int.from_bytes(flow, "big"), scope
