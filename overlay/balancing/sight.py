"""What this node can know of servers: whether the forwarder carried packets, and had a session with the peer.

A check that fails while that is not so says nothing about its server.  The forwarder is asked questions as long as
checks are under way; one that it answers late, or not yet, tells that packets waited too.  Computes only.  Times are
seconds of any clock that only moves forward.
"""

from __future__ import annotations

import math
from collections import deque

# Ours
BLIND = 1.0  # seconds for an answer, beyond which packets of checks may have been late or lost
GAPS = 64  # times without sight that are remembered, the oldest forgotten first
# Seconds in which sessions come about after a forwarder has begun, though a handshake message is lost: it is sent again
# after 5 s.  What is unreachable for longer is down.
SETTLES = 10.0


class Sight:
    """When this node could see servers."""

    def __init__(self) -> None:
        self._begun_at = -math.inf
        self._asked: dict[int, float] = {}  # when, by serial
        self._gaps: deque[tuple[float, float]] = deque(maxlen=GAPS)
        self._met: dict[int, float] = {}  # peers that the forwarder has had a session with, since when

    def begun(self, now: float) -> None:
        """Note that a forwarder begins, which has no session yet; what an earlier one had of packets is lost."""
        self._begun_at = now
        self._asked.clear()
        self._met.clear()

    def met(self, peer: int, now: float) -> None:
        """Note that the forwarder has a session with *peer*."""
        self._met.setdefault(peer, now)

    def asked(self, serial: int, now: float) -> None:
        """Note that the forwarder is asked a question, in place of an unanswered one
        with the same serial.
        """
        self.answered(serial, now)
        self._asked[serial] = now

    def answered(self, serial: int, now: float) -> None:
        """Note its answer, or that the answer is no longer awaited."""
        self.looked(self._asked.pop(serial, now), now)

    def looked(self, due: float, now: float) -> None:
        """Note that what was *due* came to pass: this node itself may not have had its turn."""
        if now - due > BLIND:
            self._gaps.append((due, now))

    def was_blind(self, since: float, until: float, peer: int | None) -> bool:
        """Return whether a check from *since* to *until* may have failed for a fault of this node.

        *peer* is the one that the server is at; None where no session is needed.
        """
        if since < self._begun_at:
            return True
        if peer is not None and since < self._begun_at + SETTLES and self._met.get(peer, math.inf) > since:
            return True
        if any(until - at > BLIND for at in self._asked.values()):
            return True
        return any(start < until and since < end for start, end in self._gaps)
