"""From the wire to the tun, in the clear: nothing tells who made a packet but the addresses that it came with.

So a payload is taken only from the configured endpoint of a peer whose tunnel is not encrypted, whatever port it came
from, and only with an inner source that is that peer's.  Whoever can send from that address can be that peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from overlay.errors import PacketError
from overlay.forwarding.segments import Framing, Geometries, Rows
from overlay.wire.ip import CE, ECT_1, take_outer_ecn
from overlay.wire.mss import PROTOCOL_AT, SYN_PROTOCOLS, clamp_mss, may_be_syn
from overlay.wire.virtio import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.encap.encapsulation import Clear, Encapsulation
    from overlay.forwarding.core import Core
    from overlay.forwarding.inbound import Arrival
    from overlay.forwarding.peer import Peer
    from overlay.forwarding.segments import Bytes2D
    from overlay.wire.addresses import Sockaddr

BARE = Framing(0, 0, pads=False)  # a payload that is the packet

Place: TypeAlias = tuple[str | int, ...]
"""An encapsulation and an underlay address: where peers of that encapsulation are."""


def place_of(encapsulation: Encapsulation, sockaddr: Sockaddr) -> Place:
    """Return the place of *sockaddr*: its address, with the interface of a link-local one, and not its port."""
    return encapsulation.name, sockaddr[0], *sockaddr[3:]


class ClearInbound:
    """Knows where the peers in the clear are, and delivers what comes from there."""

    def __init__(
        self,
        core: Core,
        write: Callable[[Peer, list[memoryview | bytes]], None],
        joins_udp: bool,
    ) -> None:
        self._core, self._write, self._joins_udp = core, write, joins_udp
        self._geometries = Geometries()
        self._peers: dict[Place, list[Peer]] = {}

    def move(self, peer: Peer, endpoint: Sockaddr | None) -> None:
        """Take packets of *peer* from *endpoint*, and from where it was until now no more; None is nowhere."""
        if peer.endpoint is not None:
            place = place_of(peer.encapsulation, peer.endpoint)
            left = [each for each in self._peers.pop(place, []) if each is not peer]
            if left:
                self._peers[place] = left
        if endpoint is not None:
            self._peers.setdefault(place_of(peer.encapsulation, endpoint), []).append(peer)

    def take(
        self,
        encapsulation: Encapsulation,
        array: Bytes2D,
        view: memoryview,
        size: int,
        stride: int,
        arrival: Arrival,
        source: Sockaddr,
        now: float,
    ) -> None:
        """Take *size* bytes at the start of *view*: payloads of *stride* bytes but for the last."""
        clear = encapsulation.clear
        assert clear is not None
        count = -(-size // stride)
        peers = self._peers.get(place_of(encapsulation, source))
        if peers is None:
            self._core.drops["outer_source"] += count
            return
        last = size - (count - 1) * stride
        mark = arrival.tos & 3
        rows = Rows(array, view, stride, count, last, BARE, self._geometries)
        # A mark changes packets one by one, and so does what must be stripped.
        may_join = count > 1 and mark not in {CE, ECT_1} and not peers[0].prefix[4]
        runs = rows.runs(self._joins_udp) if may_join else None
        if runs is None:
            for row in range(count):
                self._take_one(clear, peers, rows.plaintext(row), mark, now)
            return
        for run in runs:
            first = rows.plaintext(run.first)
            if run.count == 1:
                self._take_one(clear, peers, first, mark, now)
                continue
            peer = self._sender(peers, first)
            if peer is None:
                peers[0].drops["source"] += run.count
                continue
            peer.rx_packets += run.count
            peer.rx_bytes += run.count * stride - (stride - last if run.first + run.count == count else 0)
            peer.last_received = now
            self._write(peer, rows.super_packet(run))

    def _take_one(self, clear: Clear, peers: list[Peer], payload: memoryview, mark: int, now: float) -> None:
        blamed = peers[0]
        try:
            start, end, identifier = clear.strip(payload)
            packet = payload[start:end]
            peer = self._sender([each for each in peers if each.ends.identifier == identifier], packet)
            if peer is None:
                raise PacketError("source")
            blamed = peer
            if mark:
                take_outer_ecn(packet, mark)
            if packet[PROTOCOL_AT[packet[0] >> 4]] in SYN_PROTOCOLS and may_be_syn(packet, 0, len(packet)):
                clamp_mss(packet, min(peer.path_mtu, self._core.outbound.splitter.mtu))
        except PacketError as error:
            blamed.drops[error.reason] += 1
            return
        peer.rx_packets += 1
        peer.rx_bytes += len(payload)
        peer.last_received = now
        self._write(peer, [PLAIN, packet])

    def _sender(self, peers: list[Peer], packet: memoryview) -> Peer | None:
        """Return which of *peers*, all at one place, may have sent *packet*."""
        for peer in peers:
            if self._core.is_from(peer, packet) or (
                peer.sources is not None and self._core.is_from_sources(peer, packet)
            ):
                return peer
        return None
