"""Which peers send more than the average to sockets where much waits, and what of theirs is dropped early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.forwarding.lane.beside import are_of_one_host
from overlay.forwarding.underlay.crowding import pieces_of

if TYPE_CHECKING:
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.crowding import Crowding
    from overlay.forwarding.underlay.received import Received
    from overlay.reasons import Drops

# Ours
TURN = 0.1  # seconds during which pieces of each peer are counted
ALLOWED = 64  # pieces of a peer in a turn that are never dropped
COMPANY = 60.0  # seconds since another peer sent, after which a peer is alone and delays nobody
ELSEWHERE = -1  # in place of a peer's number


class Turns:
    """How much each peer sent in the present turn to sockets that are behind.

    Whoever has seen a datagram of a session can send others with its index.  So those that do not come from where the
    peer is are not counted as the peer's: all of them, of whatever sessions, are counted together, as one more peer.
    """

    def __init__(self, strangers: Drops) -> None:
        """*strangers* counts what is dropped of those."""
        self._strangers = strangers
        self._turn, self._total = -1, 0
        self._by_peer: dict[int, int] = {}
        self._last, self._company_ends = 0, -math.inf  # who sent last, and until when there are others

    def drop(self, received: Received, peer: LivePeer | None) -> bool:
        """Return whether what was *received* from *peer* is too much now, and if so count it as dropped."""
        if peer is None:
            return False
        size, stride = received.size, received.stride
        count, merged = -(-size // stride), received.arrival.segment
        pieces = pieces_of(size, merged) if merged else count
        number, drops = peer.number, peer.drops
        if received.udp.clear is None and not are_of_one_host(peer.endpoint, received.source):
            number, drops = ELSEWHERE, self._strangers
        if self.admits(received.udp.crowding, number, pieces, received.now):
            return False
        drops.add("crowded", count, None, received.view[: min(size, stride)])
        return True

    def admits(self, crowding: Crowding, peer: int, pieces: int, now: float) -> bool:
        """Return whether to take *pieces* of the *peer* with that number, which are counted in any case.

        What comes from ELSEWHERE is no company for a peer, and has no right to be alone.
        """
        if peer not in {self._last, ELSEWHERE}:
            self._company_ends = now + COMPANY if self._last else -math.inf
            self._last = peer
        turn = int(now / TURN)
        if turn != self._turn:
            self._turn, self._total = turn, 0
            self._by_peer.clear()
        self._total += pieces
        sent = self._by_peer[peer] = self._by_peer.get(peer, 0) + pieces
        is_modest = sent <= ALLOWED or sent * len(self._by_peer) < self._total
        is_alone = peer != ELSEWHERE and now >= self._company_ends
        return is_modest or not crowding.is_pressed or is_alone
