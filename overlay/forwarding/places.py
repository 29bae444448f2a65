"""Where the peers are, so that a datagram on its way to one of them is recognised without a look at each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.forwarding.peer import Peer
    from overlay.wire.addresses import Sockaddr


class Places:
    """The endpoints of all peers, of which several may be at one, as behind a router; and the ports sent from."""

    def __init__(self) -> None:
        self.own_ports: dict[str, frozenset[bytes]] = {}  # of this node, packed, by encapsulation
        self._count: Counter[tuple[bytes, bytes]] = Counter()  # by address and port, packed

    def move(self, peer: Peer, endpoint: Sockaddr) -> None:
        """Send to *peer* at *endpoint* from now on."""
        self.leave(peer)
        peer.move(endpoint)
        self._count[peer.place] += 1

    def leave(self, peer: Peer) -> None:
        """Forget where *peer* is, which is to be sent nothing any more."""
        if self._count[peer.place] <= 1:
            del self._count[peer.place]
        else:
            self._count[peer.place] -= 1

    def __contains__(self, place: tuple[bytes, bytes]) -> bool:
        """Return whether a peer is at *place*: address of 4 or 16 bytes and port of 2, in network byte order."""
        return place in self._count
