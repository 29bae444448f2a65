"""From the wire to the tap: open, check the Ethernet source, join, write.

On such a link nobody knows who may have which IP address, so only Ethernet addresses are checked, and claims to an
address that the peers file assigns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.bulk.units import make_for_tun, read_unit, take_link
from overlay.forwarding.ethernet.clear import ClearFrames
from overlay.forwarding.offload.flow import HEADER_SIZE, SEALED
from overlay.forwarding.offload.join import Rows
from overlay.forwarding.tun.inbound import Inbound
from overlay.wire import frames
from overlay.wire.control import is_control
from overlay.wire.ethernet import ETHERTYPES
from overlay.wire.frames import (
    FRAME_HEADER_SIZE,
    ethertype,
    ip_start,
)
from overlay.wire.ip import CE, ECT_1, PROTOCOL_UDP, packet_length, take_outer_ecn
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import PLAIN, VIRTIO_SIZE

if TYPE_CHECKING:
    from overlay.forwarding.ethernet.bridge import Bridge
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.flow import Framing
    from overlay.forwarding.offload.join import Run
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.tun.inbound import TunWriter
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.upcalls import Upcalls

_PLAIN = {version: kind.to_bytes(2, "big") for version, kind in ETHERTYPES.items()}
_FRAME = HEADER_SIZE + FRAME_HEADER_SIZE  # where a frame begins in its datagram


class FramesInbound(Inbound):
    """The receiving half of the packet path of a tap."""

    def __init__(
        self, core: Upcalls, tap: TunWriter, joins_udp: bool, takes_units: bool, bridge: Bridge
    ) -> None:
        super().__init__(core, tap, joins_udp, takes_units)
        self._bridge = bridge
        self.clear = ClearFrames(core, self._write, joins_udp, bridge, self._admit)

    def _deliver_table(self, received: Received, keypair: Keypair[LivePeer], fresh: list[int]) -> None:
        """Write the frames of the rows *fresh*, joined where they can be."""
        rows = Rows.of(received, SEALED, self._geometries)
        stride, ecn, now = rows.stride, received.arrival.ecn, received.now
        joined = None
        if len(fresh) == rows.count and ecn not in {CE, ECT_1}:
            joined = self._joinable(rows)
        runs = joined[0].runs(self.joins_udp) if joined is not None else None
        if joined is None or runs is None:
            for row in fresh:
                self.deliver(keypair, row * stride, len(rows.plaintext(row)), ecn, now)
            return
        packets, header = joined
        for run in runs:
            if run.count == 1:
                self.deliver(keypair, run.first * stride, len(rows.plaintext(run.first)), ecn, now)
            else:
                self._deliver_frames(keypair.peer, packets, header, run, now)

    def deliver_run(self, received: Received, keypair: Keypair[LivePeer], run: Run) -> None:
        """Write the super-frame that the rows of *run* make, of opened messages of *received*."""
        begin = run.first * received.stride + _FRAME
        frame = self._view[begin : begin + received.stride - _FRAME - SEALED.tag]
        packet = ip_start(frame)
        rows = Rows.of(received, _framing(packet), self._geometries)
        self._deliver_frames(keypair.peer, rows, bytes(frame[:packet]), run, received.now)

    def _deliver_frames(self, peer: LivePeer, packets: Rows, header: bytes, run: Run, now: float) -> None:
        """Write the super-frame of one Ethernet *header* and the *packets* of *run*."""
        core = self._core
        core.liveness.data_received(peer, now)
        try:
            self._bridge.from_peer(peer.number, header, now)
        except PacketError as error:
            core.refused(peer, error.reason, run.count)
            return
        peer.traffic.rx_packets += run.count
        self._write(peer, packets.super_packet(run, header))

    def _joinable(self, rows: Rows) -> tuple[Rows, bytes] | None:
        """Return the IP packets of frames that all have one Ethernet header, and that header; None if they do not."""
        count, stride, last = rows.count, rows.stride, rows.last
        frame = self._view[_FRAME : stride - SEALED.tag]
        packet = ip_start(frame) if self._buffer[HEADER_SIZE] == frames.TYPE_FRAME else 0
        before = _FRAME + packet
        if not packet or last < before + SEALED.tag:
            return None
        heads = self._array[: count * stride].reshape(count, stride)[:, HEADER_SIZE:before]
        differs = heads != heads[0]
        differs[:, 1] = False  # the padding, behind which an IP packet ends anyway
        if differs.any():
            return None
        packets = Rows(self._array, self._view, stride, count, last, _framing(packet), self._geometries)
        return packets, bytes(frame[:packet])

    def deliver(self, keypair: Keypair[LivePeer], at: int, size: int, ecn: int, now: float) -> None:
        """Write the frame in an opened payload of *size* bytes that begins at *at* + 16."""
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
            begin, end = frames.parse(payload)
            frame = payload[begin:end]
            self._admit(peer, frame, ecn, now)
        except PacketError as error:
            core.refused(peer, error.reason)
            return
        peer.traffic.rx_packets += 1
        begin += start - VIRTIO_SIZE
        self._view[begin : begin + VIRTIO_SIZE] = PLAIN
        self._write(peer, [self._view[begin : start + end]])

    def _admit(
        self, peer: LivePeer, frame: memoryview, ecn: int, now: float, is_partial: bool = False
    ) -> None:
        """Learn from a frame of *peer* and return what leaves the tunnel.  Raises PacketError.

        With *is_partial* the kernel is to finish its checksum.
        """
        packet = ip_start(frame)
        if ecn and packet:
            take_outer_ecn(frame[packet:], ecn)
        self._bridge.from_peer(peer.number, frame, now)
        if packet:
            inner, mtu = FRAME_HEADER_SIZE + packet, self._core.outbound.splitter.mtu
            clamp_syn(frame, packet, len(frame), mtu - inner, peer.path.mtu - inner, is_partial=is_partial)

    def deliver_unit(self, peer: LivePeer, unit: memoryview, most: int, ecn: int, now: float) -> None:
        """Write the super-frame of an opened unit, once every claim about it is verified."""
        core = self._core
        core.liveness.data_received(peer, now)
        try:
            unit, header = take_link(unit)
            packet, flow, gso_type, segment = read_unit(unit, most)
            if header[12:] != _PLAIN[flow.version] and not _carries(header, flow.version):
                raise PacketError("unit_packet")
            if ecn:
                take_outer_ecn(packet, ecn)
            self._bridge.from_peer(peer.number, header, now)
        except PacketError as error:
            core.refused(peer, error.reason)
            return
        peer.traffic.rx_packets += -(-(len(packet) - flow.size) // segment)
        if flow.protocol == PROTOCOL_UDP and not self.joins_udp:
            train = self._splitter().split(packet, gso_type, segment, flow.l4)
            for row in train.plain:
                segments: list[memoryview | bytes] = [PLAIN, header, row[: packet_length(row)]]
                self._write(peer, segments)
            return
        make_for_tun(unit, flow, gso_type, segment, len(header))
        whole: list[memoryview | bytes] = [unit[:VIRTIO_SIZE], header, packet]
        self._write(peer, whole)


def _framing(packet: int) -> Framing:
    """Return what stands around packets that begin *packet* bytes after their frames."""
    return SEALED._replace(header=_FRAME + packet, inner=FRAME_HEADER_SIZE + packet)


def _carries(header: bytes, version: int) -> bool:
    """Return whether the Ethernet header *header*, all of it, is that of an IP packet of *version*."""
    return ethertype(header) == (ETHERTYPES[version], len(header))
