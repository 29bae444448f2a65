"""From the tap to the wire: learn, find out whom a frame is for, seal, send.

A frame for one peer is sealed where it was read, or cut into a train whose segments share the Ethernet header.  A frame
for all peers is copied for each, so the number of copies per second is limited.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.ethernet.clear import lane_for
from overlay.forwarding.keypair import NONCE
from overlay.forwarding.offload.flow import OVERHEAD, padded
from overlay.forwarding.offload.split import ClearSplitter, Splitter
from overlay.forwarding.path.oversize import largest_segment
from overlay.forwarding.ratelimit import Bucket
from overlay.forwarding.tun.outbound import ARENA_BYTES, BATCH, READ_BYTES, Outbound
from overlay.forwarding.underlay.outer_header import TTL_SHIFT, ttl_of
from overlay.link.messages import OWN
from overlay.wire import frames
from overlay.wire.ethernet import ETHERNET_SIZE, VLAN_SIZE
from overlay.wire.frames import FRAME_HEADER, FRAME_HEADER_SIZE, MAXIMUM_TAGS, TYPE_FRAME, ip_start
from overlay.wire.ip import IPV6_HEADER_SIZE, PROTOCOL_UDP, ecn, packet_length
from overlay.wire.messages import PADDING, TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import NEEDS_CSUM, PLAIN, VIRTIO_HEADER, VIRTIO_SIZE, Offload, offload_at

if TYPE_CHECKING:
    from overlay.forwarding.ethernet.bridge import Bridge
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.split import SealedTrain
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.tun.inbound import TunWriter
    from overlay.forwarding.twin import TunReader
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.ip import Buffer

# Ours
FLOODED_PER_SECOND, FLOODED_AT_ONCE = (
    20_000.0,
    20_000.0,
)  # copies of broadcast frames, to all peers together
# The same for questions and announcements of who has an address, which pass during a storm of other frames
ASKED_PER_SECOND, ASKED_AT_ONCE = 5_000.0, 5_000.0
FLOODED_IN_PLACE = 32  # copies that are sent before the next packet, in 0.3 ms; more are sent between packets
_FRAME = TRANSPORT_HEADER.size + FRAME_HEADER_SIZE  # where a frame begins, behind where its datagram does
_VIRTIO = _FRAME - VIRTIO_SIZE
_READ = READ_BYTES + ETHERNET_SIZE + MAXIMUM_TAGS * VLAN_SIZE  # a super-packet, and the headers of its frame
_LINK = 64  # more than an Ethernet header takes behind its packet, in a unit
_ROOM = _VIRTIO + _READ + PADDING + TAG_SIZE + _LINK


class FramesOutbound(Outbound):
    """The sending half of the packet path of a tap.  What Outbound calls MTU is what one payload takes."""

    _virtio_at, _room = _VIRTIO, _ROOM

    def __init__(self, core: Upcalls, mtu: int, tap: TunWriter, bridge: Bridge) -> None:
        super().__init__(core, mtu)
        self._tap, self._bridge = tap, bridge
        self._first = self._view[_VIRTIO : _VIRTIO + _READ]
        self._flooded = Bucket(FLOODED_PER_SECOND, FLOODED_AT_ONCE)
        self._asked = Bucket(ASKED_PER_SECOND, ASKED_AT_ONCE)

    def set_mtu(self, mtu: int) -> None:
        """Cut for payloads of *mtu* bytes from now on."""
        super().set_mtu(mtu)
        self._splitters: dict[int, Splitter] = {}  # by the bytes before the packet in a payload
        self._clear_splitters: dict[int, ClearSplitter] = {}  # by the same bytes

    def _forward_staged(self, peer: LivePeer, size: int, now: float) -> None:
        """Send to *peer*, whom it waited for, the frame that stands where the next is read to."""
        end = self._at + _VIRTIO + size
        self._send(peer, self._at, end, ip_start(self._view[self._at + _FRAME : end]), now)

    def _read_batch(
        self,
        tun: TunReader,
        now: float,
        was_read: int = 0,
        *,
        is_first: bool = True,  # noqa: ARG002  frames make no table
    ) -> int:
        """Forward at most a batch and return how many frames it had; of the first,
        *was_read* bytes are there already.
        """
        for taken in range(BATCH):
            at = self._at
            if at + _ROOM > ARENA_BYTES:
                return BATCH
            size = was_read or tun.readinto(self._view[at + _VIRTIO : at + _VIRTIO + _READ])
            was_read = 0
            if not size:
                return taken
            self.forward(at, size, now)
        return BATCH

    def forward(self, at: int, size: int, now: float) -> None:
        """Send the frame whose virtio header stands in the arena at *at* + 8; *size* covers both."""
        core, bridge = self._core, self._bridge
        start, end = at + _FRAME, at + _VIRTIO + size
        if size < VIRTIO_SIZE + ETHERNET_SIZE:
            core.drops.add("tun_malformed", 1, self._view[start:end])
            return
        frame = self._view[start:end]
        packet = ip_start(frame)
        if packet and self._is_own_datagram(frame, packet):
            core.drops.add("loop", 1, frame)
            return
        try:
            number = bridge.from_tap(frame, now)
        except PacketError as error:
            core.drops.add(error.reason, 1, frame)
            return
        if number == OWN:
            core.drops.add("own_side", 1, frame)
            return
        peer = core.peers.get(number) if number is not None else None
        if peer is not None:
            self._send(peer, at, end, packet, now)
            return
        answer = bridge.answer(frame, now)
        if answer is None:
            self._flood(start, end, packet, now)
            return
        with contextlib.suppress(OSError):  # whoever asked asks again
            self._tap.write([PLAIN, answer])

    def _send(self, peer: LivePeer, at: int, end: int, packet: int, now: float) -> None:
        """Send the frame that the arena has from *at* + 18 to *end*, its virtio header before it, to *peer* alone.

        Its IP packet begins *packet* bytes after it; 0 is without any.
        """
        core, arena, view = self._core, self._arena, self._view
        start = at + _FRAME
        keypair = peer.keypairs.usable(now)
        if keypair is None:
            if peer.clear is None:
                self._stage(peer, bytes(view[at + _VIRTIO : end]), now)
            elif peer.endpoint is None:
                peer.drops.add("no_endpoint")
            else:
                self._send_clear(peer, start, end, packet, now)
            return
        if keypair.bulk is not None and not keypair.bulk.has_heard:
            self.offer(peer, keypair, now)
        frame = view[start:end]
        if arena[at + _VIRTIO] or arena[at + _VIRTIO + 1]:
            flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(arena, at + _VIRTIO)
            if gso_type:
                self._send_segments(peer, keypair, start, end, packet, now)
                return
        else:
            flags = csum_start = csum_offset = 0  # complete as it is
        if not self._finish(start, end, packet, flags, csum_start, csum_offset, peer):
            peer.drops.add("tun_malformed")
            return
        length = FRAME_HEADER_SIZE + end - start
        if length > peer.path.mtu:
            self._send_copy(peer, keypair, bytes(frame), now)
            return
        congestion = ecn(arena, start + packet) if packet else 0
        plain = padded(length, self.splitter.mtu)
        if plain > length:
            view[end : end + plain - length] = bytes(plain - length)
        begin = at + TRANSPORT_HEADER.size
        FRAME_HEADER.pack_into(arena, begin, TYPE_FRAME, plain - length)
        counter = keypair.counter
        keypair.counter = counter + 1
        TRANSPORT_HEADER.pack_into(arena, at, TYPE_TRANSPORT, keypair.remote_index, counter)
        keypair.seal(
            NONCE(counter), view[begin : begin + plain], None, view[begin : begin + plain + TAG_SIZE]
        )
        self._at = at + plain + OVERHEAD
        self.queue(peer, view[at : at + plain + OVERHEAD], plain + OVERHEAD, congestion)
        core.liveness.data_sent(peer, keypair, 1, now)

    def _send_segments(
        self, peer: LivePeer, keypair: Keypair[LivePeer], start: int, end: int, packet: int, now: float
    ) -> None:
        """Send the super-frame that the arena has from *start* to *end*; its IP packet begins *packet* bytes later."""
        self.flush_peer(peer)
        frame, offload = self._view[start:end], _offload_behind(self._arena, start, packet)
        link, congestion, inner = (
            bytes(frame[:packet]),
            ecn(frame, packet) if packet else 0,
            FRAME_HEADER_SIZE + packet,
        )
        try:
            if not packet:
                raise PacketError("tun_gso")
            if inner + largest_segment(frame[packet:], offload) > peer.path.mtu:
                for each in self._segments(frame, packet, offload):
                    self._send_copy(peer, keypair, each, now)
                return
            count = self.units.send(keypair, start + packet, end, offload, congestion, now, link)
            if not count:
                count = self.send_train(keypair, frame[packet:], offload, congestion, link)
        except (PacketError, IndexError):  # headers that do not fit the virtio header's claims
            peer.drops.add("tun_gso")
            return
        self._core.liveness.data_sent(peer, keypair, count, now)

    def _split(self, packet: memoryview, offload: Offload, link: bytes) -> SealedTrain:
        """Return the segments of a super-packet in transport messages, each in a frame.  Raises PacketError."""
        inner = FRAME_HEADER_SIZE + len(link)
        splitter = self._splitters.get(inner)
        if splitter is None:
            splitter = self._splitters[inner] = Splitter(self.splitter.mtu, inner)
        train = splitter.split(packet, offload.gso_type, offload.segment, offload.csum_start)
        train.prefix(FRAME_HEADER.pack(TYPE_FRAME, train.padding.shape[1]) + link)
        train.rows[-1, TRANSPORT_HEADER.size + 1] = train.last_padding
        return train

    def _send_clear(self, peer: LivePeer, start: int, end: int, packet: int, now: float) -> None:
        """Send the frame that the arena has from *start* to *end*, its virtio header before it, in the clear."""
        if now >= peer.path.due:
            self._core.liveness.look_at_path(peer, now)
        view, header = self._view, peer.tunnel.frame_header
        flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(
            self._arena, start - VIRTIO_SIZE
        )
        frame = view[start:end]
        lane, marks = lane_for(peer, frame, packet), self._clear_marks(frame, packet)
        if not gso_type:
            if not self._finish(start, end, packet, flags, csum_start, csum_offset, peer):
                peer.drops.add("tun_malformed")
                return
            begin = start - len(header)
            view[begin:start] = header
            self._at = end
            self.queue(lane, view[begin:end], end - begin, marks)
            peer.traffic.tx_packets += 1
            return
        inner = len(header) + packet
        splitter = self._clear_splitters.get(inner)
        if splitter is None:
            splitter = self._clear_splitters[inner] = ClearSplitter(self.splitter.mtu, inner)
        try:
            if not packet:
                raise PacketError("tun_gso")
            offload = _offload_behind(self._arena, start, packet)
            train = splitter.split(frame[packet:], offload.gso_type, offload.segment, offload.csum_start)
        except PacketError as error:
            peer.drops.add(error.reason)
            return
        self.flush_peer(lane)
        train.prefix(header + bytes(frame[:packet]))
        for part in train.parts():
            self._core.sender.send(peer, part, train.size, marks, lane.flow)
        peer.traffic.tx_packets += train.count

    def _segments(self, frame: memoryview, packet: int, offload: Offload) -> list[bytes]:
        """Return the frames that a super-frame stands for.  Raises PacketError."""
        if not packet:
            raise PacketError("tun_gso")
        train = self.splitter.split(frame[packet:], offload.gso_type, offload.segment, offload.csum_start)
        header = bytes(frame[:packet])
        return [header + bytes(row[: packet_length(row)]) for row in train.plain]

    def _flood(self, start: int, end: int, packet: int, now: float) -> None:
        """Send the frame that the arena has from *start* to *end* once to every peer."""
        core, frame = self._core, self._view[start:end]
        flags, gso_type, _, _, csum_start, csum_offset = VIRTIO_HEADER.unpack_from(
            self._arena, start - VIRTIO_SIZE
        )
        if gso_type:
            try:
                copies = self._segments(frame, packet, _offload_behind(self._arena, start, packet))
            except PacketError as error:
                core.drops.add(error.reason)
                return
        elif self._finish(start, end, packet, flags, csum_start, csum_offset):
            copies = [bytes(frame)]
        else:
            core.drops.add("tun_malformed")
            return
        bucket = self._asked if any(frames.read_neighbour(frame)) else self._flooded
        if not bucket.take(len(copies) * len(core.peers), now):
            core.drops.add("flood", len(copies))
            return
        sends = itertools.product(copies, list(core.peers.values()))
        if len(copies) * len(core.peers) > FLOODED_IN_PLACE or core.jobs.has(
            "flood"
        ):  # in the order they came
            core.jobs.add("flood", sends, self._send_flooded)
            return
        for each in sends:
            self._send_flooded(each, now)

    def _send_flooded(self, copy_and_peer: tuple[bytes, LivePeer], now: float) -> None:
        """Send a complete frame, which is for everybody, to one peer."""
        frame, peer = copy_and_peer
        if self._core.peers.get(peer.number) is not peer:
            return  # removed meanwhile
        keypair = peer.keypairs.usable(now)
        if keypair is not None:
            self.flush_peer(peer)
            self._send_copy(peer, keypair, frame, now)
        elif peer.clear is None or peer.endpoint is None:
            self._stage(peer, PLAIN + frame, now)
        else:
            self._send_clear_copy(peer, frame, now)

    def _send_copy(self, peer: LivePeer, keypair: Keypair[LivePeer], frame: bytes, now: float) -> None:
        """Send a complete frame in a datagram of its own, which routers may fragment where it exceeds the path MTU.

        A bridge cannot tell anyone that a frame is too large.
        """
        packet = ip_start(frame)
        length = FRAME_HEADER_SIZE + len(frame)
        payload = frames.build(frame, padded(length, self.splitter.mtu) - length)
        congestion = ecn(frame, packet) if packet else 0
        self.send_payload(peer, keypair, payload, congestion, may_be_cut=len(payload) > peer.path.mtu)
        self._core.liveness.data_sent(peer, keypair, 1, now)

    def _send_clear_copy(self, peer: LivePeer, frame: bytes, now: float) -> None:
        """Send a complete frame in the clear, in a datagram of its own."""
        if now >= peer.path.due:
            self._core.liveness.look_at_path(peer, now)
        packet = ip_start(frame)
        lane, marks = lane_for(peer, memoryview(frame), packet), self._clear_marks(frame, packet)
        datagram = memoryview(peer.tunnel.frame_header + frame)
        self.flush_peer(lane)
        self._core.sender.send(peer, [datagram], len(datagram), marks, lane.flow)
        peer.traffic.tx_packets += 1

    def _clear_marks(self, frame: Buffer, packet: int) -> int:
        """Return what the outer header takes over from the IP packet that *frame* has at *packet*; 0 is without any."""
        if not packet:
            return 0
        marks = ecn(frame, packet)
        return marks | ttl_of(frame, packet) << TTL_SHIFT if self._core.node.inherits_ttl else marks

    def _stage(self, peer: LivePeer, frame: bytes, now: float) -> None:
        if peer.endpoint is None:
            peer.drops.add("no_endpoint")
        else:
            self._core.stage(peer, frame, now)

    def _finish(
        self,
        start: int,
        end: int,
        packet: int,
        flags: int,
        csum_start: int,
        csum_offset: int,
        peer: LivePeer | None = None,
    ) -> bool:
        """Clamp a SYN and finish the checksum of the frame that the arena has from *start* to *end*.

        Returns False where the checksum points outside the packet, which begins at *packet*; 0 is without any.
        """
        at = start + packet
        is_partial = flags & NEEDS_CSUM != 0
        if packet:
            inner, mtu = FRAME_HEADER_SIZE + packet, self.splitter.mtu
            path_mtu = peer.path.mtu if peer is not None else mtu
            clamp_syn(self._arena, at, end, mtu - inner, path_mtu - inner, is_partial=is_partial)
        if not is_partial:
            return True
        return bool(packet) and self.complete(at, end - at, csum_start - packet, csum_offset)

    def _is_own_datagram(self, frame: memoryview, packet: int) -> bool:
        """Return whether *frame* is a datagram of our own on its way to a peer: the tap is bridged to the underlay."""
        if frame[packet] >> 4 == 4:
            protocol, ports = frame[packet + 9], packet + (frame[packet] & 15) * 4
            address = frame[packet + 16 : packet + 20]
        else:
            protocol, ports = frame[packet + 6], packet + IPV6_HEADER_SIZE
            address = frame[packet + 24 : packet + 40]
        if protocol != PROTOCOL_UDP:
            return False
        source = bytes(frame[ports : ports + 2])
        if not any(source in own_ports for own_ports in self._core.places.own_ports.values()):
            return False
        return (bytes(address), bytes(frame[ports + 2 : ports + 4])) in self._core.places


def _offload_behind(arena: bytearray, start: int, packet: int) -> Offload:
    """Return the header of the super-frame that *arena* has at *start*,
    as of the packet behind *packet* bytes of it.
    """
    offload = offload_at(arena, start - VIRTIO_SIZE)
    return offload._replace(csum_start=offload.csum_start - packet)
