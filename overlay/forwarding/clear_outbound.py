"""From the tun to the wire, in the clear: the prefix of the tunnel before each packet, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.narrow import largest_segment
from overlay.forwarding.segments import ClearSplitter
from overlay.wire.mss import PROTOCOL_AT, SYN_PROTOCOLS, clamp_mss, may_be_syn
from overlay.wire.virtio import NEEDS_CSUM, VIRTIO_HEADER, VIRTIO_SIZE

if TYPE_CHECKING:
    from overlay.forwarding.core import Core
    from overlay.forwarding.outbound import Outbound
    from overlay.forwarding.peer import Peer


class ClearOutbound:
    """The way of packets to peers in the clear, from the arena of *outbound*."""

    def __init__(self, core: Core, outbound: Outbound, arena: bytearray) -> None:
        self._core, self._outbound = core, outbound
        self._arena, self._view = arena, memoryview(arena)
        self._splitters: dict[int, ClearSplitter] = {}  # by the bytes before each packet

    def forward(self, peer: Peer, start: int, end: int, ecn: int, now: float) -> bool:
        """Send the packet that the arena has from *start* to *end*, its virtio header before it.

        Returns whether the arena is in use up to *end* until the next flush().
        """
        arena, view, outbound = self._arena, self._view, self._outbound
        version, length = arena[start] >> 4, end - start
        prefix = peer.prefix[version]
        flags, gso_type, _, segment, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(
            arena, start - VIRTIO_SIZE
        )
        if now >= peer.path_due:
            self._core.look_at_path(peer, now)
        if gso_type:
            packet = view[start:end]
            if (
                length > peer.path_mtu
                and largest_segment(packet, gso_type, segment, csum_start) > peer.path_mtu
            ):
                outbound.flush_peer(peer)
                outbound.narrow.send_segments(peer, None, packet, gso_type, segment, csum_start, ecn, now)
                return False
            self._forward_segments(peer, packet, prefix, gso_type, segment, csum_start, ecn)
            return False
        if arena[start + PROTOCOL_AT[version]] in SYN_PROTOCOLS and may_be_syn(arena, start, end):
            mtu = min(peer.path_mtu, outbound.splitter.mtu)
            clamp_mss(view[start:end], mtu, is_partial=bool(flags & NEEDS_CSUM))
        if flags & NEEDS_CSUM and not outbound.complete(start, length, csum_start, csum_offset):
            peer.drops["tun_malformed"] += 1
            return False
        if length > peer.path_mtu:
            outbound.flush_peer(peer)
            outbound.narrow.send(peer, None, view[start:end], ecn, now)
            return False
        begin = start - len(prefix)
        view[begin:start] = prefix
        outbound.queue(peer, view[begin:end], end - begin, ecn)
        peer.tx_packets += 1
        return True

    def set_mtu(self) -> None:
        """Cut for an interface of another MTU, and leave what is kept in the buffers of the last alone."""
        self._splitters = {}

    def _forward_segments(
        self,
        peer: Peer,
        packet: memoryview,
        prefix: bytes,
        gso_type: int,
        segment: int,
        csum_start: int,
        ecn: int,
    ) -> None:
        splitter = self._splitters.get(len(prefix))
        if splitter is None:
            splitter = ClearSplitter(self._outbound.splitter.mtu, len(prefix))
            self._splitters[len(prefix)] = splitter
        try:
            train = splitter.split(packet, gso_type, segment, csum_start)
        except PacketError as error:
            peer.drops[error.reason] += 1
            return
        self._outbound.flush_peer(peer)
        train.prefix(prefix)
        for part in train.parts():
            self._core.sender.send(peer, part, train.size, ecn)
        peer.tx_packets += train.count
