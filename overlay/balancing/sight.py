"""When this node could judge servers: while the forwarder carried packets and had a session with the peer.

A check that fails at another time says nothing about its server.  The forwarder is asked questions as long as checks
are under way; if it answers one late, or not yet, packets have waited, too.  Computes only.  Times are seconds of any
clock that only moves forward.
"""

from __future__ import annotations

import math
from collections import deque

# Ours
BLIND = 1.0  # seconds; if an answer takes longer, packets of checks may have been late or lost
GAPS = 64  # periods without sight that are remembered; the oldest is forgotten first
# Seconds within which sessions begin after a forwarder has started, even if a handshake message is lost: it is sent
# again after 5 s.  A server that is unreachable for longer is down.
SETTLES = 10.0


class Sight:
    """When this node could see servers."""

    def __init__(self) -> None:
        self._begun_at = -math.inf
        self._asked: dict[int, float] = {}  # when, by serial
        self._gaps: deque[tuple[float, float]] = deque(maxlen=GAPS)
        self._met: dict[int, float] = {}  # peers with which the forwarder has had a session, and since when

    def begun(self, now: float) -> None:
        """Note that a new forwarder starts, without sessions; packets that an earlier one held are lost."""
        self._begun_at = now
        self._asked.clear()
        self._met.clear()

    def met(self, peer: int, now: float) -> None:
        """Note that the forwarder has a session with *peer*."""
        self._met.setdefault(peer, now)

    def asked(self, serial: int, now: float) -> None:
        """Note that the forwarder is asked a question, which replaces an unanswered one with the same serial."""
        self.answered(serial, now)
        self._asked[serial] = now

    def answered(self, serial: int, now: float) -> None:
        """Note that the forwarder answered, or that the answer is no longer awaited."""
        self.looked(self._asked.pop(serial, now), now)

    def looked(self, due: float, now: float) -> None:
        """Note that an event that was *due* happens only *now*: this node may have waited for a processor."""
        if now - due > BLIND:
            self._gaps.append((due, now))

    def was_blind(self, since: float, until: float, peer: int | None) -> bool:
        """Return whether a check from *since* to *until* may have failed because of this node.

        *peer* is the number of the server's peer; None if no session with it is needed.
        """
        if since < self._begun_at:
            return True
        if peer is not None and since < self._begun_at + SETTLES and self._met.get(peer, math.inf) > since:
            return True
        if any(until - at > BLIND for at in self._asked.values()):
            return True
        return any(start < until and since < end for start, end in self._gaps)
