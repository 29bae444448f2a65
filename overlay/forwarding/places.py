"""Where the peers are, so that a datagram on its way to one of them is recognized without examining each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from overlay.wire.ip import IPV6_HEADER_SIZE, PROTOCOL_UDP

if TYPE_CHECKING:
    from overlay.forwarding.peer import LivePeer
    from overlay.wire.addresses import Sockaddr


class Places:
    """The endpoints of all peers, several of which may share one, for example behind a router; and the source ports."""

    def __init__(self) -> None:
        self.own_ports: dict[
            str, frozenset[bytes]
        ] = {}  # of this node, packed, by encapsulation; replaced as a whole
        self._count: Counter[tuple[bytes, bytes]] = Counter()  # by address and port, packed

    def move(self, peer: LivePeer, endpoint: Sockaddr) -> None:
        """Send to *peer* at *endpoint* from now on."""
        self.leave(peer)
        peer.move(endpoint)
        self._count[peer.place] += 1

    def leave(self, peer: LivePeer) -> None:
        """Forget where *peer* is; nothing is sent to it any more."""
        if self._count[peer.place] <= 1:
            del self._count[peer.place]
        else:
            self._count[peer.place] -= 1

    def is_own_datagram(self, peer: LivePeer, packet: memoryview) -> bool:
        """Return whether *packet*, IP and addressed to *peer*'s endpoint, is a datagram of this node."""
        if packet[0] >> 4 == 4:
            protocol, ports = packet[9], (packet[0] & 15) * 4
        else:
            protocol, ports = packet[6], IPV6_HEADER_SIZE
        if not peer.has_ports:
            return protocol in peer.encapsulation.protocols.values()
        if protocol != PROTOCOL_UDP or ports + 4 > len(packet):
            return False
        source, destination = packet[ports : ports + 2], packet[ports + 2 : ports + 4]
        own_ports = self.own_ports.get(peer.encapsulation.name, frozenset())
        return destination == peer.place[1] and bytes(source) in own_ports

    def __contains__(self, place: tuple[bytes, bytes]) -> bool:
        """Return whether a peer is at *place*: address of 4 or 16 bytes and port of 2, in network byte order."""
        return place in self._count
