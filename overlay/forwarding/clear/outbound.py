"""From the tun to the wire, in the clear: the prefix of the tunnel before each packet, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.offload.split import ClearSplitter
from overlay.forwarding.path.oversize import largest_segment
from overlay.forwarding.peer import WIDE
from overlay.forwarding.underlay.flows import hash_flow
from overlay.forwarding.underlay.outer_header import TTL_SHIFT, marks_of, ttl_of
from overlay.wire.icmp import told_mtu
from overlay.wire.messages import TRANSPORT_HEADER
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import NEEDS_CSUM, VIRTIO_HEADER, VIRTIO_SIZE, offload_at

if TYPE_CHECKING:
    from overlay.forwarding.batch import Batch
    from overlay.forwarding.path.oversize import Oversize
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.flows import FlowQueue
    from overlay.forwarding.upcalls import Upcalls

# Specification (RFC 791 section 3.1)
LEAST_MTU = 576  # what every host accepts; smaller values are not believed

# Ours
HEEDED_TIME = 600.0  # seconds; the kernel remembers such errors as long


class ClearOutbound:
    """The outbound path of packets to unencrypted peers, from the arena of *outbound*."""

    def __init__(self, core: Upcalls, outbound: Batch, oversize: Oversize, arena: bytearray) -> None:
        self._core, self._outbound, self._oversize = core, outbound, oversize
        self._arena, self._view = arena, memoryview(arena)
        self._splitters: dict[int, ClearSplitter] = {}  # by the bytes before each packet

    def forward(self, peer: LivePeer, start: int, end: int, ecn: int, now: float) -> bool:
        """Send the packet that the arena has from *start* to *end*, its virtio header before it.

        It is dropped where the peer's address is not known.  Returns whether the arena is in use up to *end* until the
        next flush().
        """
        arena, view, outbound = self._arena, self._view, self._outbound
        version, length = arena[start] >> 4, end - start
        if peer.endpoint is None:
            self._core.cannot_reach(peer, view[start:end], now)
            return False
        if not ttl_of(arena, start):
            peer.drops.add("ttl", 1, view[start:end])  # RFC 2003 section 3.1
            return False
        marks = ecn
        if not peer.has_ports:
            marks = marks_of(arena, start, inherits_ttl=self._core.node.inherits_ttl)
        elif self._core.node.inherits_ttl:
            marks |= ttl_of(arena, start) << TTL_SHIFT
        self._heed(peer, start, end, now)  # its far end may be a kernel
        prefix = peer.tunnel.prefix[version]
        flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(arena, start - VIRTIO_SIZE)
        if now >= peer.path.due:
            self._core.liveness.look_at_path(peer, now)
        lanes = peer.lanes
        lane: FlowQueue[LivePeer] = peer
        if lanes:
            lane = lanes[hash_flow(view[start:end]) % len(lanes)]
        if gso_type:
            self._forward_segments(lane, prefix, start, end, marks, now)
            return False
        clamp_syn(arena, start, end, outbound.splitter.mtu, peer.path.mtu, is_partial=flags & NEEDS_CSUM != 0)
        if flags & NEEDS_CSUM and not outbound.complete(start, length, csum_start, csum_offset):
            peer.drops.add("tun_malformed", 1, view[start:end])
            return False
        if length > peer.path.mtu:
            outbound.flush_peer(lane)
            self._oversize.send(peer, None, view[start:end], marks, now)
            return False
        peer.traffic.tx_packets += 1
        begin = start - len(prefix)
        if len(prefix) > TRANSPORT_HEADER.size:
            # The arena has no room for it: only for a transport header before each packet, which a table of them needs.
            outbound.queue(lane, memoryview(prefix + view[start:end]), end - begin, marks)
            return False
        view[begin:start] = prefix
        if peer.tunnel.is_finished:
            peer.tunnel.finish(view[begin:end])
        outbound.queue(lane, view[begin:end], end - begin, marks)
        return True

    def _heed(self, peer: LivePeer, start: int, end: int, now: float) -> None:
        """Learn from an ICMP error on its way to *peer* the limit for its packets, for a while."""
        if now >= peer.unsealed.segment_limit_ends:
            peer.unsealed.segment_limit = WIDE
        mtu = told_mtu(self._view[start:end])
        if mtu is not None:
            peer.unsealed.segment_limit = min(peer.unsealed.segment_limit, max(mtu, LEAST_MTU))
            peer.unsealed.segment_limit_ends = now + HEEDED_TIME

    def set_mtu(self) -> None:
        """Cut for an interface with another MTU; what the buffers of the last one contain stays."""
        self._splitters = {}

    def _forward_segments(
        self, lane: FlowQueue[LivePeer], prefix: bytes, start: int, end: int, marks: int, now: float
    ) -> None:
        """Send the super-packet that the arena has from *start* to *end* as a train of payloads."""
        peer, packet = lane.peer, self._view[start:end]
        offload = offload_at(self._arena, start - VIRTIO_SIZE)
        if end - start > peer.path.mtu and largest_segment(packet, offload) > peer.path.mtu:
            self._outbound.flush_peer(lane)
            self._oversize.send_segments(peer, None, packet, offload, marks, now)
            return
        splitter = self._splitters.get(len(prefix))
        if splitter is None:
            splitter = ClearSplitter(self._outbound.splitter.mtu, len(prefix))
            self._splitters[len(prefix)] = splitter
        try:
            train = splitter.split(packet, offload.gso_type, offload.segment, offload.csum_start)
        except PacketError as error:
            peer.drops.add(error.reason, 1, packet)
            return
        self._outbound.flush_peer(lane)
        train.prefix(prefix)
        if peer.tunnel.is_finished:
            for payload in train.full:
                peer.tunnel.finish(payload)
        for part in train.parts():
            self._core.sender.send(peer, part, train.size, marks, lane.flow)
        peer.traffic.tx_packets += train.count
