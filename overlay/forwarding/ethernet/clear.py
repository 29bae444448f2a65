"""Unencrypted Ethernet frames: from the tap to the wire, and back.

A frame is accepted from the configured endpoint of a peer whose tunnel has the identifier before the frame, and from
nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from overlay.errors import PacketError
from overlay.forwarding.clear.inbound import ClearInbound, place_of
from overlay.forwarding.offload.flow import Framing
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.offload.partial import virtio_for
from overlay.forwarding.underlay.flows import hash_flow
from overlay.wire.ethernet import ETHERNET_SIZE
from overlay.wire.frames import FRAME_OVERHEAD, ip_start
from overlay.wire.ip import CE, ECT_1, packet_length
from overlay.wire.virtio import PLAIN, VIRTIO_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.encap.encapsulation import Clear
    from overlay.forwarding.ethernet.bridge import Bridge
    from overlay.forwarding.offload.join import Run
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.flows import FlowQueue
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.upcalls import Upcalls


def lane_for(peer: LivePeer, frame: memoryview, packet: int) -> FlowQueue[LivePeer]:
    """Return the lane of the flow that *frame* is of: by its IP packet, which begins at *packet*,
    or its Ethernet header.
    """
    if not peer.lanes:
        return peer
    number = hash_flow(frame[packet:]) if packet else crc32(frame[:ETHERNET_SIZE])
    return peer.lanes[number % len(peer.lanes)]


class ClearFrames(ClearInbound):
    """Knows where the unencrypted peers are, and delivers frames from there."""

    def __init__(
        self,
        core: Upcalls,
        write: Callable[[LivePeer, list[memoryview | bytes]], None],
        joins_udp: bool,
        bridge: Bridge,
        admit: Callable[[LivePeer, memoryview, int, float, bool], None],
    ) -> None:
        """*admit* takes note of a frame and makes of it what leaves the tunnel, or raises PacketError."""
        super().__init__(core, write, joins_udp)
        self._bridge, self._admit = bridge, admit

    def _take_from(self, clear: Clear, peers: list[LivePeer], received: Received) -> None:
        view, size, stride = received.view, received.size, received.stride
        ecn, now = received.arrival.ecn, received.now
        joined = None
        if size > stride and ecn not in {CE, ECT_1}:
            joined = self._joinable(clear, peers, received)
        runs = joined[1].runs(self._joins_udp) if joined is not None else None
        if joined is None or runs is None:
            for at in range(0, size, stride):
                self._take_one(clear, peers, view[at : min(at + stride, size)], ecn, now)
            return
        peer, rows, header = joined
        for run in runs:
            at = run.first * stride
            if run.count == 1:
                self._take_one(clear, peers, view[at : min(at + stride, size)], ecn, now)
                continue
            self._take_frames(peer, rows, run, header, received)

    def take_run(self, received: Received, run: Run) -> None:
        """Take the rows of *run*, 2 or more, from who is known to be there; they make a super-frame."""
        clear = received.udp.clear
        assert clear is not None
        peers = self.peers_at(place_of(received.udp.encapsulation, received.source))
        stride = received.stride
        payload = received.view[run.first * stride : (run.first + 1) * stride]
        peer, start = _find(clear, peers, payload)
        frame = payload[start:]
        packet = ip_start(frame)
        rows = Rows.of(received, Framing(start + packet, 0, pads=False), self._geometries)
        self._take_frames(peer, rows, run, bytes(frame[:packet]), received)

    def _take_frames(self, peer: LivePeer, rows: Rows, run: Run, header: bytes, received: Received) -> None:
        """Take the super-frame of one Ethernet *header* and the packets of *run*."""
        try:
            self._bridge.from_peer(peer.number, header, received.now)
        except PacketError as error:
            peer.drops.add(error.reason, run.count)
            return
        peer.traffic.rx_packets += run.count
        peer.traffic.rx_bytes += min(run.count * rows.stride, received.size - run.first * rows.stride)
        peer.contact.last_received = received.now
        self._write(peer, rows.super_packet(run, header))

    def _joinable(
        self, clear: Clear, peers: list[LivePeer], received: Received
    ) -> tuple[LivePeer, Rows, bytes] | None:
        """Return whose frames these are if all have one Ethernet header, their IP packets, and that header."""
        size, stride = received.size, received.stride
        try:
            peer, start = _find(clear, peers, received.view[:stride])
        except PacketError:
            return None
        frame, count = received.view[start:stride], -(-size // stride)
        packet = ip_start(frame)
        before, last = start + packet, size - (count - 1) * stride
        heads = received.array[: count * stride].reshape(count, stride)[:, :before]
        if not packet or last < before or (heads != heads[0]).any():
            return None
        framing = Framing(before, 0, pads=False)
        return peer, Rows.of(received, framing, self._geometries), bytes(frame[:packet])

    def _take_one(
        self, clear: Clear, peers: list[LivePeer], payload: memoryview, ecn: int, now: float
    ) -> None:
        blamed = peers[0]
        try:
            blamed, start = _find(clear, peers, payload)
            frame = payload[start:]
            virtio = self._virtio(blamed, frame)
            self._admit(blamed, frame, ecn, now, virtio != PLAIN)
        except PacketError as error:
            blamed.drops.add(error.reason)
            return
        blamed.traffic.rx_packets += 1
        blamed.traffic.rx_bytes += len(payload)
        blamed.contact.last_received = now
        self._write(blamed, [virtio, frame])

    def _virtio(self, peer: LivePeer, frame: memoryview) -> bytes:
        """Return the virtio header of *frame*: a far end that is a kernel may leave work to its card.

        Raises PacketError for a frame that cannot be completed.
        """
        packet = ip_start(frame)
        if not packet or not _ends_with(frame[packet:]):
            return PLAIN
        virtio = virtio_for(peer, frame[packet:], self._core.outbound.splitter.mtu - FRAME_OVERHEAD)
        if virtio == PLAIN:
            return PLAIN
        flags, kind, size, segment, start, offset = VIRTIO_HEADER.unpack(virtio)
        return VIRTIO_HEADER.pack(flags, kind, packet + size, segment, packet + start, offset)


def _ends_with(packet: memoryview) -> bool:
    """Return whether a frame ends with its IP *packet*: whoever pads or cuts a frame has completed the
    packet before.
    """
    try:
        return packet_length(packet) == len(packet)
    except PacketError:
        return False


def _find(clear: Clear, peers: list[LivePeer], payload: memoryview) -> tuple[LivePeer, int]:
    """Return which of *peers*, all at one place, a payload is of, and where the frame in it begins.
    Raises PacketError.
    """
    if clear.frames is None:
        raise PacketError("no_frame")
    start, identifier = clear.frames.find(payload)
    for peer in peers:
        if peer.tunnel.ends.identifier == identifier:
            return peer, start
    raise PacketError(clear.mismatch)
