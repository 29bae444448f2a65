"""From the wire to the tun, unencrypted: only its addresses tell who made a packet.

So a payload is only accepted from the configured endpoint of a peer whose tunnel is not encrypted, whatever port it
came from, and only with an inner source that is that peer's.  Anyone who can send from that address can be that peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from overlay.errors import PacketError
from overlay.forwarding.clear.neighbours import Neighbours
from overlay.forwarding.offload.flow import Framing
from overlay.forwarding.offload.join import Geometries, Rows
from overlay.forwarding.offload.partial import virtio_for
from overlay.wire.addresses import pack_host
from overlay.wire.ip import CE, ECT_1, take_outer_ecn
from overlay.wire.mss import clamp_syn
from overlay.wire.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.encap.encapsulation import Clear, Encapsulation
    from overlay.forwarding import state
    from overlay.forwarding.clear.source_ranges import SourceRanges
    from overlay.forwarding.offload.join import Run
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.addresses import Sockaddr

Place: TypeAlias = tuple[str | int, ...]
"""An encapsulation and an underlay address: where peers of that encapsulation are."""


def place_of(encapsulation: Encapsulation, sockaddr: Sockaddr) -> Place:
    """Return the place of *sockaddr*: its address, with the interface of a link-local one, and not its port."""
    return encapsulation.name, sockaddr[0], *sockaddr[3:]


class Locator(Protocol):
    """Another place that must know where peers are: the compiled twin."""

    def locate(
        self, peer: state.PeerState, address: bytes, scope: int, layout: int, has_ports: bool, /
    ) -> None: ...
    def unlocate(self, peer: state.PeerState, /) -> None: ...


class ClearInbound:
    """Knows where the unencrypted peers are, and delivers what arrives from there."""

    def __init__(
        self,
        core: Upcalls,
        write: Callable[[LivePeer, list[memoryview | bytes]], None],
        joins_udp: bool,
    ) -> None:
        self._core, self._write, self._joins_udp = core, write, joins_udp
        self._geometries = Geometries()
        self._peers: dict[Place, list[LivePeer]] = {}
        self._neighbours = Neighbours(core)
        self.locator: Locator | None = None
        self.ranges: SourceRanges | None = None  # where there is a twin

    def move(self, peer: LivePeer, endpoint: Sockaddr | None) -> None:
        """Accept packets of *peer* from *endpoint*, and no longer from its previous one; None is nowhere."""
        if peer.endpoint is not None:
            place = place_of(peer.encapsulation, peer.endpoint)
            left = [each for each in self._peers.pop(place, []) if each is not peer]
            if left:
                self._peers[place] = left
            if self.locator is not None:
                self.locator.unlocate(peer.state)
        if endpoint is not None:
            self._peers.setdefault(place_of(peer.encapsulation, endpoint), []).append(peer)
            if self.locator is not None and peer.clear is not None:
                scope = endpoint[3] if len(endpoint) == 4 else 0
                layout = peer.clear.layout
                self.locator.locate(peer.state, pack_host(endpoint), scope, layout, peer.has_ports)

    def peers_at(self, place: Place) -> list[LivePeer]:
        """Return the peers that are at *place*."""
        return self._peers.get(place, [])

    def first(self, received: Received) -> LivePeer | None:
        """Return the first of the peers that are where *received* came from; None if nobody is."""
        return next(iter(self._peers.get(place_of(received.udp.encapsulation, received.source), ())), None)

    def take(self, received: Received) -> None:
        """Take the payloads of *received*."""
        encapsulation = received.udp.encapsulation
        clear = encapsulation.clear
        assert clear is not None
        peers = self._peers.get(place_of(encapsulation, received.source))
        if peers is None:
            count = -(-received.size // received.stride)
            self._core.drops.add("outer_source", count, None, received.view[: received.stride])
            return
        self._take_from(clear, peers, received)

    def _take_from(self, clear: Clear, peers: list[LivePeer], received: Received) -> None:
        """Take payloads of *peers*, who are at one place."""
        view, size, stride = received.view, received.size, received.stride
        ecn, now = received.arrival.ecn, received.now
        count = -(-size // stride)
        before, of_all = 0, peers
        # A congestion mark changes packets one by one, and so does what is not the same before each.
        may_join = count > 1 and ecn not in {CE, ECT_1}
        if may_join and peers[0].tunnel.prefix[4]:
            of_all, before = self._same_before(clear, peers, received)
            may_join = bool(of_all)
        rows = Rows.of(received, Framing(before, 0, pads=False), self._geometries)
        runs = rows.runs(self._joins_udp) if may_join else None
        if runs is None:
            for row in range(count):
                self._take_one(clear, peers, _payload(view, row, stride, size), ecn, now)
            return
        for run in runs:
            if run.count == 1:
                self._take_one(clear, peers, _payload(view, run.first, stride, size), ecn, now)
            else:
                self._take_run(of_all, rows, run, received)

    def take_payload(self, received: Received, payload: memoryview) -> None:
        """Take one *payload* of *received* from the peers that are known to be there."""
        encapsulation = received.udp.encapsulation
        assert encapsulation.clear is not None
        peers = self._peers[place_of(encapsulation, received.source)]
        self._take_one(encapsulation.clear, peers, payload, received.arrival.ecn, received.now)

    def take_run(self, received: Received, run: Run) -> None:
        """Take the rows of *run*, 2 or more, from who is known to be there; they are of one tunnel
        and make a super-packet.
        """
        encapsulation = received.udp.encapsulation
        assert encapsulation.clear is not None
        peers = self._peers[place_of(encapsulation, received.source)]
        payload = _payload(received.view, run.first, received.stride, received.size)
        before, _, identifier = encapsulation.clear.strip(payload)
        peers = [each for each in peers if each.tunnel.ends.identifier == identifier]
        self._take_run(
            peers, Rows.of(received, Framing(before, 0, pads=False), self._geometries), run, received
        )

    def _take_run(self, peers: list[LivePeer], rows: Rows, run: Run, received: Received) -> None:
        peer = self.sender(peers, rows.plaintext(run.first))
        if peer is None:
            peers[0].drops.add("source", run.count, rows.plaintext(run.first))
            return
        peer.traffic.rx_packets += run.count
        at = run.first * rows.stride
        peer.traffic.rx_bytes += min(run.count * rows.stride, received.size - at)
        peer.contact.last_received = received.now
        self._write(peer, rows.super_packet(run))

    def _same_before(
        self, clear: Clear, peers: list[LivePeer], received: Received
    ) -> tuple[list[LivePeer], int]:
        """Return the peers that the tunnel of the payloads is of, and how many bytes stand before each packet.

        They are the same before all of them; if they are not, there are no peers.
        """
        size, stride = received.size, received.stride
        payload, count = received.view[:stride], -(-size // stride)
        try:
            start, _, identifier = clear.strip(payload)
            found = [each for each in peers if each.tunnel.ends.identifier == identifier]
            if found and clear.frames is not None:
                clear.frames.admit(payload, found[0].tunnel.ends)
        except PacketError:
            return [], 0
        heads = received.array[: count * stride].reshape(count, stride)[:, :start]
        if size - (count - 1) * stride <= start or start & 1 or (heads != heads[0]).any():
            return [], 0
        return found, start

    def _take_one(
        self, clear: Clear, peers: list[LivePeer], payload: memoryview, ecn: int, now: float
    ) -> None:
        blamed = peers[0]
        try:
            start, end, identifier = clear.strip(payload)
            packet = payload[start:end]
            found = [each for each in peers if each.tunnel.ends.identifier == identifier]
            if not found:
                raise PacketError(clear.mismatch)
            blamed = found[0]
            if clear.frames is not None:
                clear.frames.admit(payload, found[0].tunnel.ends)
            peer = self.sender(found, packet)
            if peer is None:
                raise PacketError("source")
            blamed = peer
            if ecn:
                take_outer_ecn(packet, ecn)
            # The far end may be a kernel, which leaves work to its network card.
            mtu = self._core.outbound.splitter.mtu
            virtio = virtio_for(peer, packet, mtu)
        except PacketError as error:
            frames = clear.frames
            if frames is None or not self._neighbours.answer(frames, peers, payload, now):
                blamed.drops.add(error.reason, 1, None, payload)
            return
        peer.traffic.rx_packets += 1
        peer.traffic.rx_bytes += len(payload)
        peer.contact.last_received = now
        clamp_syn(packet, 0, len(packet), mtu, peer.path.mtu, is_partial=virtio is not PLAIN)
        self._write(peer, [virtio, packet])

    def sender(self, peers: list[LivePeer], packet: memoryview) -> LivePeer | None:
        """Return which of *peers*, all at one place, may have sent *packet*: the owner of its source comes first."""
        if len(peers) > 1:
            owner = self._core.table.peer_of(_source_of(packet))
            if owner in peers:
                return owner
        for peer in peers:
            if self._core.is_from(peer, packet):
                return peer
            if peer.unsealed.sources is not None and self._core.table.has_source(peer, _source_of(packet)):
                if self.ranges is not None:
                    self.ranges.want(peer)
                return peer
        return None


def _source_of(packet: memoryview) -> bytes:
    return bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])


def _payload(view: memoryview, row: int, stride: int, size: int) -> memoryview:
    return view[row * stride : min((row + 1) * stride, size)]
