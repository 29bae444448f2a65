"""The handling of packets that are larger than the path MTU to their peer.

It is that of a router: the sender of a packet that must not be fragmented is told, and any other IPv4 packet is
fragmented.  IPv6 packets up to 1280 bytes must pass whole on any link (RFC 8200 section 5), so on a narrower path their
datagrams may be fragmented outside the tunnel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.underlay.outer_header import WHOLE
from overlay.wire.fragments import cut, may_be_cut
from overlay.wire.ip import IPV6_MINIMUM_MTU, packet_length
from overlay.wire.messages import PADDING
from overlay.wire.virtio import GSO_ECN, GSO_UDP_L4

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.virtio import Offload


def largest_segment(packet: memoryview, offload: Offload) -> int:
    """Return the size of the packets that the segments of a super-packet make, headers included."""
    start = offload.csum_start
    if offload.gso_type & ~GSO_ECN == GSO_UDP_L4:
        return start + 8 + offload.segment
    at = start + 12
    words = packet[at] >> 4 if at < len(packet) else 5  # such a header is refused when it is split
    return start + words * 4 + offload.segment


class Oversize:
    """The path of packets that are larger than ``peer.path.mtu``; without a keypair they leave unencrypted."""

    def __init__(self, core: Upcalls) -> None:
        self._core = core

    def send(
        self, peer: LivePeer, keypair: Keypair[LivePeer] | None, packet: memoryview, marks: int, now: float
    ) -> None:
        """Send *packet*, whose checksums are complete, in pieces, or tell its sender."""
        if not self._is_refused(peer, packet, len(packet), now):
            self._send(peer, keypair, [packet], marks, now)

    def send_segments(
        self,
        peer: LivePeer,
        keypair: Keypair[LivePeer] | None,
        packet: memoryview,
        offload: Offload,
        marks: int,
        now: float,
    ) -> None:
        """Send the segments of a super-packet, which are too large, in pieces, or tell their sender."""
        if self._is_refused(peer, packet, largest_segment(packet, offload), now):
            return
        try:
            train = self._core.outbound.splitter.split(
                packet, offload.gso_type, offload.segment, offload.csum_start
            )
        except PacketError as error:
            peer.drops.add(error.reason, 1, packet)
            return
        self._send(peer, keypair, (row[: packet_length(row)] for row in train.plain), marks, now)

    def _is_refused(self, peer: LivePeer, packet: memoryview, size: int, now: float) -> bool:
        """Return whether packets of *size* bytes exceed the path MTU and must not be fragmented;
        then their sender gets an error.
        """
        is_ipv6 = packet[0] >> 4 == 6
        if size <= IPV6_MINIMUM_MTU if is_ipv6 else may_be_cut(packet):
            return False
        peer.drops.add("path_mtu", 1, packet)
        self._core.unreachable.tell(packet, now, peer.path.mtu)
        return True

    def _send(
        self,
        peer: LivePeer,
        keypair: Keypair[LivePeer] | None,
        packets: Iterable[memoryview],
        marks: int,
        now: float,
    ) -> None:
        count = 0
        for packet in packets:
            if packet[0] >> 4 == 4:
                for piece in cut(packet, peer.path.mtu):
                    self._send_packet(peer, keypair, piece, marks)
            else:
                self._send_packet(peer, keypair, bytes(packet), marks)
            count += 1
        if keypair is not None:
            self._core.liveness.data_sent(peer, keypair, count, now)
        else:
            peer.traffic.tx_packets += count

    def _send_packet(
        self, peer: LivePeer, keypair: Keypair[LivePeer] | None, packet: bytes, marks: int
    ) -> None:
        """Send *packet* by itself; if it is still too large, its datagram may be fragmented."""
        is_larger, sender = len(packet) > peer.path.mtu, self._core.sender
        if keypair is not None:
            self._core.outbound.send_payload(peer, keypair, _filled(packet), marks, may_be_cut=is_larger)
        elif is_larger and not peer.has_ports:
            sender.send_message(peer, peer.tunnel.payload(packet), marks & ~WHOLE)
        elif is_larger:
            sender.send_cuttable(peer, peer.tunnel.payload(packet), marks)
        else:
            sender.send_message(peer, peer.tunnel.payload(packet), marks)


def _filled(packet: bytes) -> bytes:
    """Return *packet* with zeros to a multiple of 16; so is the path MTU, if it is less than the tun's."""
    return packet + bytes(-len(packet) % PADDING)
