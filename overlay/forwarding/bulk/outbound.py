"""From the tun to the wire, as bulk units: which super-packets go this way, and in how many pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overlay.forwarding.bulk.size import SMALLEST
from overlay.forwarding.bulk.units import Cutter, append_link, cut_points, gso_type_of, portions
from overlay.forwarding.offload.flow import OVERHEAD, flow_of
from overlay.wire.bulk import META, MINIMUM_SEGMENT
from overlay.wire.virtio import GSO_ECN, NEEDS_CSUM

if TYPE_CHECKING:
    from overlay.forwarding.batch import Batch
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.virtio import Offload


class UnitOutbound:
    """Sends super-packets that are in the outbound arena as units."""

    def __init__(self, core: Upcalls, batch: Batch, arena: bytearray) -> None:
        self._core, self._batch, self._arena = core, batch, arena
        self._view, self._array = memoryview(arena), np.frombuffer(arena, np.uint8)
        self._cutter = Cutter()

    def send(
        self,
        keypair: Keypair[LivePeer],
        start: int,
        end: int,
        offload: Offload,
        ecn: int,
        now: float,
        link: bytes = b"",
    ) -> int:
        """Send the super-packet from *start* to *end* as one unit or a few; return how many segments it has.

        Returns 0 if it cannot go this way.  *link* is the Ethernet header of a super-frame.
        """
        peer, bulk, segment = keypair.peer, keypair.bulk, offload.segment
        if bulk is None or segment < MINIMUM_SEGMENT or not offload.flags & NEEDS_CSUM:
            return 0
        if not bulk.has_heard:
            self._batch.offer(peer, keypair, now)
        packet = self._view[start:end]
        flow, key, size, is_trial = flow_of(packet), bulk.key, bulk.size, bulk.size.is_plain
        if flow is None or flow.l4 != offload.csum_start or offload.gso_type & ~GSO_ECN != gso_type_of(flow):
            return 0
        count = -(-(len(packet) - flow.size) // segment)
        # No larger than a full transport message, which the path carries; that of the end with the smaller MTU.
        datagram = min(self._batch.splitter.mtu, bulk.packet, peer.path.mtu) + OVERHEAD
        limit = bulk.most_segments(datagram, flow.size, segment, len(link), now)
        if key is None or count < 2 or limit < min(count, SMALLEST):
            return 0
        if key.is_old:
            self._core.liveness.want(peer, now)
            if key.is_spent:
                return 0
        lane = keypair.lane
        self._batch.flush_peer(peer.lanes[lane] if lane else peer)
        sender = self._core.sender
        if count <= limit:
            size.sent(key.counter, now)
            start -= META.size
            META.pack_into(self._arena, start, offload.gso_type, segment)
            if link:
                end = append_link(self._arena, start, end, link)
            for part in self._cutter.cut_in_place(key, self._view, self._array, start, end, datagram):
                sender.send(peer, [part], datagram, ecn, lane)
            peer.traffic.tx_units += 1
            self._core.liveness.units_sent(peer, bulk)
            return count
        cuts = [0, limit, count] if is_trial else cut_points(count, limit)
        pieces = portions(packet, flow, offload.gso_type, segment, cuts)
        for number, (kind, header, payload) in enumerate(pieces):
            if is_trial and number:
                rest = memoryview(header + bytes(payload))
                self._batch.send_train(keypair, rest, offload._replace(gso_type=kind), ecn, link)
                continue
            size.sent(key.counter, now)
            for part in self._cutter.cut(key, kind, segment, header, payload, datagram, link):
                sender.send(peer, [part], datagram, ecn, lane)
            peer.traffic.tx_units += 1
        self._core.liveness.units_sent(peer, bulk)
        return count
