"""From the tun to the wire: look up, seal, send.

Small packets are read into an arena, each at an offset that leaves room for its header before and its tag behind,
sealed where they are, and sent together when nothing more can be read: nothing waits.  A super-packet is cut into a
train (``offload``), sealed, and sent at once with one call or two.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.bulk.outbound import UnitOutbound
from overlay.forwarding.bulk.units import LARGEST_DATAGRAM
from overlay.forwarding.clear.outbound import ClearOutbound
from overlay.forwarding.keypair import NONCE
from overlay.forwarding.offload.flow import OVERHEAD, padded
from overlay.forwarding.offload.split import Splitter
from overlay.forwarding.offload.uniform import WORTH, UniformRows, stride_of
from overlay.forwarding.path.oversize import Oversize, largest_segment
from overlay.forwarding.underlay.batching import Batching
from overlay.link.messages import OWN
from overlay.link.service_messages import VIRTUAL
from overlay.session.constants import REJECT_AFTER_MESSAGES
from overlay.wire.ip import ADDRESS_V4, ADDRESS_V6, IPV6_MINIMUM_MTU, checksum, ecn, is_for_many
from overlay.wire.messages import PADDING, TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import NEEDS_CSUM, VIRTIO_HEADER, VIRTIO_SIZE, Offload, offload_at

if TYPE_CHECKING:
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.split import SealedTrain
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.twin import TunReader, Twin
    from overlay.forwarding.underlay.flows import FlowQueue
    from overlay.forwarding.upcalls import Upcalls

# Ours
BATCH = 64  # packets read in one go before the other direction gets its turn
ARENA_BYTES = 256 * 1024
READ_BYTES = VIRTIO_SIZE + 65535  # the most one read of the tun gives
MAXIMUM_PENDING_BYTES = 65500  # one UDP send
MAXIMUM_PENDING = 64
_OFFSET = TRANSPORT_HEADER.size - VIRTIO_SIZE  # where the virtio header goes, so that the packet is at 16
_ROOM = _OFFSET + READ_BYTES + PADDING + TAG_SIZE  # what one packet may take of the arena


class Outbound:
    """The sending half of the packet path."""

    _virtio_at, _room = _OFFSET, _ROOM  # of each packet in the arena

    def __init__(self, core: Upcalls, mtu: int) -> None:
        self._core = core
        self.compiled: Twin | None = None
        # Pieces cut from its end are put behind it
        self.arena = self._arena = bytearray(ARENA_BYTES + LARGEST_DATAGRAM)
        self._view = memoryview(self._arena)
        self._first = self._view[_OFFSET : _OFFSET + READ_BYTES]
        self._at = 0
        self.lane = 0  # that packets are forwarded for
        self._is_again = False  # forwarded packets have waited, and were counted when they arrived
        self.pace = Batching()
        self.oversize = Oversize(core)
        self._clear = ClearOutbound(core, self, self.oversize, self._arena)
        self.units = UnitOutbound(core, self, self._arena)
        self._dirty: list[FlowQueue[LivePeer]] = []
        self.set_mtu(mtu)

    def drain(self, tun: TunReader, now: float) -> None:
        """Forward what is in the tun, at most a batch."""
        if self.compiled is not None:
            self.compiled.drain_tun(tun, now)
            return
        self._at = 0
        if self.pace.takes_one(now):
            size = tun.readinto(self._first)
            if size:
                self.forward(0, size, now)
                self.flush()
            return
        taken = self._read_batch(tun, now)
        self.flush()
        self.pace.took(taken)

    def go_on(
        self, tun: TunReader, at: int, size: int, now: float, *, is_alone: bool, is_first: bool = True
    ) -> int:
        """Forward what stands at *at* of the arena as a read would have put it there, and unless it *is_alone* a batch.

        Unless it *is_first* of its batch, what follows it does not make a table with it.
        Returns how many packets these were.
        """
        self._at = at
        if is_alone:
            self.forward(at, size, now)
            taken = 1
        else:
            taken = self._read_batch(tun, now, size, is_first=is_first)
        self.flush()
        return taken

    def _read_batch(self, tun: TunReader, now: float, was_read: int = 0, *, is_first: bool = True) -> int:
        """Forward at most a batch and return how many packets it had.

        Packets of one size are read in a row as rows of a table, and processed together.  Of the first, *was_read*
        bytes are already where it is read to, unless that is 0.
        """
        view, mtu = self._view, self.splitter.mtu
        alike = size_alike = 0
        for taken in range(BATCH):
            at = self._at
            if at + _ROOM > ARENA_BYTES:
                self._forward_alike(size_alike, alike, now)
                return BATCH
            size = was_read or tun.readinto(view[at + _OFFSET : at + _OFFSET + READ_BYTES])
            was_read = 0
            if size and alike and size == size_alike:
                alike += 1
                self._at = at + stride_of(size - VIRTIO_SIZE, mtu)
                continue
            if alike:
                self._forward_alike(size_alike, alike, now)
                alike = 0
                self._at = at
            if not size:
                return taken
            if at or size - VIRTIO_SIZE > mtu or not is_first:
                self.forward(at, size, now)
            else:
                alike, size_alike = 1, size
                self._at = stride_of(size - VIRTIO_SIZE, mtu)
        self._forward_alike(size_alike, alike, now)
        return BATCH

    def _forward_alike(self, size: int, count: int, now: float) -> None:
        """Send *count* packets, read as *size* bytes each one behind the other from the start of the arena on."""
        if count >= WORTH and self._send_uniform(size - VIRTIO_SIZE, count, now):
            return
        stride = stride_of(size - VIRTIO_SIZE, self.splitter.mtu)
        for at in range(0, count * stride, stride):
            self.forward(at, size, now)

    def _send_uniform(self, length: int, count: int, now: float) -> bool:
        """Send packets of one flow as a table; return False, with nothing done, for packets that must be examined one
        by one.
        """
        core, start = self._core, TRANSPORT_HEADER.size
        if length < 40 or not self._uniform.are(length, count):
            return False
        is_ipv4 = self._arena[start] >> 4 == 4
        destination: bytes
        (destination,) = (
            ADDRESS_V4(self._arena, start + 16) if is_ipv4 else ADDRESS_V6(self._arena, start + 24)
        )
        peer = core.table.remembered.get(destination) or core.table.find(destination)
        vip = peer
        if peer is not None and peer.number == VIRTUAL:
            if not self._uniform.are_of_one_flow(length, count):
                return False
            peer = core.services.peek(peer, self._view[start : start + length])
        if peer is None or peer.number == OWN or destination == peer.place[0]:
            return False
        if length > peer.path.mtu or now >= peer.path.due:  # a hello may leave behind the first
            return False
        keypair = peer.keypairs.usable(now, count, self.lane)
        if keypair is None:
            return False
        flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(self._arena, _OFFSET)
        if gso_type or (
            flags & NEEDS_CSUM and not self._uniform.complete(length, count, csum_start, csum_offset)
        ):
            return False
        if length > IPV6_MINIMUM_MTU and not peer.asking.is_worth_it:
            peer.ask_about_probes()
        if vip is not None and vip is not peer:
            core.services.choose(vip, self._view[start : start + length], now, count, length * count)
        self._flush_lane(keypair)
        size = stride_of(length, self.splitter.mtu)
        congestion = ecn(self._arena, start)
        for part in self._uniform.seal(keypair, length, count):
            core.sender.send(peer, [part], size, congestion, keypair.lane)
        core.liveness.data_sent(peer, keypair, count, now)
        return True

    def send_staged(self, peer: LivePeer, packets: list[bytes], now: float) -> None:
        """Forward packets that waited for a keypair, in their order."""
        self._at, self._is_again = 0, True
        for packet in packets:
            if self._at + self._room > ARENA_BYTES:
                self.flush()
                self._at = 0
            start = self._at + self._virtio_at
            self._view[start : start + len(packet)] = packet
            self._forward_staged(peer, len(packet), now)
        self._is_again = False
        self.flush()

    def _forward_staged(self, _: LivePeer, size: int, now: float) -> None:
        """Send what stands where the next packet is read to, with its virtio header *size* bytes, to whom it is for."""
        self.forward(self._at, size, now)

    def forward(self, at: int, size: int, now: float) -> None:
        """Send the packet whose virtio header stands in the arena at *at* + 6; *size* covers both."""
        core, arena, view = self._core, self._arena, self._view
        start, end = at + TRANSPORT_HEADER.size, at + _OFFSET + size
        length = end - start
        version = arena[start] >> 4
        if version == 4 and length >= 20:
            (destination,) = ADDRESS_V4(arena, start + 16)
            ecn = arena[start + 1] & 3
        elif version == 6 and length >= 40:
            (destination,) = ADDRESS_V6(arena, start + 24)
            ecn = arena[start + 1] >> 4 & 3
        else:
            core.drops.add("tun_malformed", 1, view[start:end])
            return
        remembered = core.table.remembered
        peer = remembered[destination] if destination in remembered else core.table.find(destination)
        if peer is None or peer.number <= OWN:
            peer = self._find_elsewhere(peer, at, start, end, now)
            if peer is None:
                return
        if destination == peer.place[0] and core.places.is_own_datagram(peer, view[start:end]):
            peer.drops.add("loop", 1, view[start:end])
            return
        keypair = peer.keypairs.usable(now, 1, self.lane) if peer.clear is None else None
        if keypair is None and peer.clear is None:
            peer, keypair = core.services.instead_of(peer, view[start:end], now)
        if keypair is None:
            if peer.clear is None:
                core.stage(peer, bytes(view[at + _OFFSET : end]), now)
            elif self._clear.forward(peer, start, end, ecn, now):
                self._at = end
            return
        flags = csum_start = csum_offset = 0  # complete as it is
        if arena[at + _OFFSET] or arena[at + _OFFSET + 1]:
            flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(arena, at + _OFFSET)
            if gso_type:
                self._forward_segments(peer, keypair, start, end, ecn, now)
                return
        if length > peer.path.mtu:
            self._forward_oversize(peer, keypair, start, end, ecn, now)
            return
        clamp_syn(arena, start, end, self.splitter.mtu, peer.path.mtu, is_partial=flags & NEEDS_CSUM != 0)
        if flags & NEEDS_CSUM and not self.complete(start, length, csum_start, csum_offset):
            peer.drops.add("tun_malformed", 1, view[start:end])
            return
        if length > IPV6_MINIMUM_MTU and not peer.asking.is_worth_it:
            peer.ask_about_probes()
        plain = padded(length, self.splitter.mtu)
        if plain > length:
            view[end : start + plain] = bytes(plain - length)
        counter = keypair.counter
        keypair.counter = counter + 1
        TRANSPORT_HEADER.pack_into(arena, at, TYPE_TRANSPORT, keypair.remote_index, counter)
        sealed = view[start : start + plain + TAG_SIZE]
        keypair.seal(NONCE(counter), view[start : start + plain], None, sealed)
        self._at = at + plain + OVERHEAD
        lane = peer.lanes[keypair.lane] if keypair.lane else peer
        self.queue(lane, view[at : self._at], self._at - at, ecn)
        core.liveness.data_sent(peer, keypair, 1, now)

    def _forward_oversize(
        self, peer: LivePeer, keypair: Keypair[LivePeer], start: int, end: int, ecn: int, now: float
    ) -> None:
        """Send the packet that the arena has from *start* to *end* over a path that does not take it whole."""
        offload = offload_at(self._arena, start - VIRTIO_SIZE)
        if offload.flags & NEEDS_CSUM and not self.complete(
            start, end - start, offload.csum_start, offload.csum_offset
        ):
            peer.drops.add("tun_malformed", 1, self._view[start:end])
            return
        self._flush_lane(keypair)
        self.oversize.send(peer, keypair, self._view[start:end], ecn, now)

    def _forward_segments(
        self, peer: LivePeer, keypair: Keypair[LivePeer], start: int, end: int, ecn: int, now: float
    ) -> None:
        """Send the super-packet that the arena has from *start* to *end*: as units, or as a train."""
        packet, offload = self._view[start:end], offload_at(self._arena, start - VIRTIO_SIZE)
        if end - start > peer.path.mtu and largest_segment(packet, offload) > peer.path.mtu:
            self._flush_lane(keypair)
            self.oversize.send_segments(peer, keypair, packet, offload, ecn, now)
            return
        count = self.units.send(keypair, start, end, offload, ecn, now)
        if not count:
            try:
                count = self.send_train(keypair, packet, offload, ecn)
            except PacketError as error:
                peer.drops.add(error.reason, 1, packet)
                return
        self._core.liveness.data_sent(peer, keypair, count, now)

    def _find_elsewhere(
        self, found: LivePeer | None, at: int, start: int, end: int, now: float
    ) -> LivePeer | None:
        """Return the peer of a packet for which the table has *found* no peer; None if the packet is dealt with.

        A virtual address leads to the server of the flow.  An answer from one goes back to the director of its client.
        """
        core, packet = self._core, self._view[start:end]
        if found is None:
            director = core.services.permits.director_of(packet)
            if director is None:
                core.refuse(packet, "tun_multicast" if is_for_many(packet) else "no_peer", now)
            elif director.number == OWN:
                core.services.give_back(self._view[at + _OFFSET : end])
                return None
            return director
        if found.number == OWN:
            core.refuse(packet, "own_subnet", now)
            return None
        count = total = 0
        if not self._is_again:
            total, segment = end - start, offload_at(self._arena, at + _OFFSET).segment
            count = -(-total // segment) if segment else 1
        chosen = core.services.choose(found, packet, now, count, total)
        if chosen is not None and chosen.number == OWN:
            core.services.deliver(self._view[at + _OFFSET : end])
            return None
        return chosen

    def send_payload(
        self,
        peer: LivePeer,
        keypair: Keypair[LivePeer],
        payload: bytes,
        ecn: int = 0,
        *,
        may_be_cut: bool = False,
    ) -> None:
        """Send a separate payload: a control message, a keepalive if it is empty, or one packet.

        With *may_be_cut* routers may cut the datagram in fragments.
        """
        datagram = self._sealed(keypair, payload)
        if datagram and may_be_cut:
            self._core.sender.send_cuttable(peer, datagram, ecn)
        elif datagram:
            self._core.sender.send_message(peer, datagram, ecn)

    def offer(self, peer: LivePeer, keypair: Keypair[LivePeer], now: float) -> None:
        """Say hello to a peer that has not said it yet, if that is due; under the keypair of a session,
        not of a lane.
        """
        hello = keypair.bulk.offer(now) if keypair.bulk is not None and not keypair.lane else None
        if hello is not None:
            self.flush_peer(peer)
            if self.compiled is not None:
                self.compiled.flush_peer(peer)
            self.send_payload(peer, keypair, hello)

    def send_by_lane(self, peer: LivePeer, keypair: Keypair[LivePeer], payload: bytes) -> None:
        """Seal *payload* under the keypair of a lane, and send it from the port of that lane."""
        datagram = self._sealed(keypair, payload)
        if datagram:
            self._core.sender.send(peer, [memoryview(datagram)], len(datagram), 0, keypair.lane)

    def send_probe(self, peer: LivePeer, keypair: Keypair[LivePeer], payload: bytes) -> bool:
        """Send a payload whole or not at all, and return False if it is too large for this host's own device."""
        datagram = self._sealed(keypair, payload)
        return not datagram or self._core.sender.send_probe(peer, datagram)

    def set_mtu(self, mtu: int) -> None:
        """Cut for an interface of *mtu* bytes from now on."""
        self.splitter, self._uniform = Splitter(mtu), UniformRows(self._arena, mtu)
        self._clear.set_mtu()

    @staticmethod
    def _sealed(keypair: Keypair[LivePeer], payload: bytes) -> bytes:
        """Return the transport message of *payload*; nothing if the keypair is used up."""
        counter = keypair.counter
        if counter >= REJECT_AFTER_MESSAGES:
            return b""
        keypair.counter = counter + 1
        sealed = bytearray(OVERHEAD + len(payload))
        TRANSPORT_HEADER.pack_into(sealed, 0, TYPE_TRANSPORT, keypair.remote_index, counter)
        keypair.seal(NONCE(counter), payload, None, memoryview(sealed)[TRANSPORT_HEADER.size :])
        return bytes(sealed)

    def flush(self) -> None:
        """Send what is sealed and pending, for every peer."""
        for lane in self._dirty:
            self.flush_peer(lane)
        self._dirty.clear()

    def queue(self, peer: FlowQueue[LivePeer], datagram: memoryview, size: int, marks: int) -> None:
        """Append a sealed datagram to those of its peer that can leave in the same call."""
        pending = peer.pending
        if pending:
            first = peer.pending_size
            if not peer.has_ports and marks == peer.pending_marks and len(pending) < MAXIMUM_PENDING:
                peer.pending_size = max(first, size)
            elif (
                peer.pending_closed
                or size > first
                or marks != peer.pending_marks
                or len(pending) >= MAXIMUM_PENDING
                or (len(pending) + 1) * first > MAXIMUM_PENDING_BYTES
            ):
                self.flush_peer(peer)
                pending = peer.pending
            elif size < first:
                peer.pending_closed = True
        if not pending:
            peer.pending_size, peer.pending_marks, peer.pending_closed = size, marks, False
            self._dirty.append(peer)
        pending.append(datagram)

    def flush_peer(self, peer: FlowQueue[LivePeer]) -> None:
        """Send what is pending for *peer*, or in one lane of it, so that what is sent next comes behind it."""
        pending = peer.pending
        if pending:
            peer.pending = []
            self._core.sender.send(peer.peer, pending, peer.pending_size, peer.pending_marks, peer.flow)

    def _flush_lane(self, keypair: Keypair[LivePeer]) -> None:
        """Send what is pending on the lane of *keypair*."""
        self.flush_peer(keypair.peer.lanes[keypair.lane] if keypair.lane else keypair.peer)

    def send_train(
        self, keypair: Keypair[LivePeer], packet: memoryview, offload: Offload, ecn: int, link: bytes = b""
    ) -> int:
        """Send the segments of a super-packet in transport messages, and return how many.  Raises PacketError.

        *link* is the Ethernet header of a super-frame.
        """
        train, peer, counter = self._split(packet, offload, link), keypair.peer, keypair.counter
        self._flush_lane(keypair)
        keypair.counter = counter + train.count
        train.number(counter)
        deque(map(keypair.seal, train.nonces, train.plain, repeat(None), train.sealed), maxlen=0)
        train.address(keypair.remote_index)
        send = self._core.sender.send
        for part in train.parts():
            send(peer, part, train.size, ecn, keypair.lane)
        return train.count

    def _split(self, packet: memoryview, offload: Offload, _link: bytes) -> SealedTrain:
        """Return the segments of a super-packet in transport messages.  Raises PacketError."""
        return self.splitter.split(packet, offload.gso_type, offload.segment, offload.csum_start)

    def complete(self, start: int, length: int, csum_start: int, csum_offset: int) -> bool:
        """Finish the checksum that the kernel left partial; return False where it points outside the packet."""
        field = start + csum_start + csum_offset
        if csum_start < 20 or csum_start + csum_offset + 2 > length:
            return False
        value = checksum(self._view[start + csum_start : start + length])
        if not value and csum_offset == 6:
            value = 0xFFFF  # RFC 768: zero would mean no checksum
        self._arena[field] = value >> 8
        self._arena[field + 1] = value & 0xFF
        return True
