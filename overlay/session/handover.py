"""The keypairs of peers whose public key has changed: they stay for a short time, until there are new ones.

A host whose key is replaced is the same host, and it is called with its new key at once.  Packets that are on their way
meanwhile, in either direction, still use the keypairs that both ends have.  They are not kept for longer, because a key
may be replaced after it was stolen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.session.outputs import Forget

if TYPE_CHECKING:
    from overlay.session.outputs import Output
    from overlay.session.peer import PeerHandshakes

# Ours
RETRIES = 3  # initiations while the former keypairs are valid


class Handovers:
    """The current handovers: each ends *patience* seconds after the next handle_deadline(), which is due at once."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._begun: list[PeerHandshakes] = []
        self._running: list[tuple[float, PeerHandshakes, list[int]]] = []  # the next to end first

    def begin(self, former: PeerHandshakes) -> None:
        """Keep the keypairs of *former*, whose peer now has another public key."""
        self._begun.append(former)

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        if self._begun:
            return -math.inf
        return self._running[0][0] if self._running else math.inf

    def handle_deadline(self, now: float) -> list[Output]:
        """End the handovers whose time is up."""
        for former in self._begun:
            if indices := former.take_leave():
                self._running.append((now + self._patience, former, indices))
            else:
                former.wipe()
        self._begun.clear()
        outputs: list[Output] = []
        while self._running and self._running[0][0] <= now:
            _, former, indices = self._running.pop(0)
            former.wipe()
            outputs.append(Forget(former.number, indices))
        return outputs

    def forget(self, peer: int | None = None) -> None:
        """End the handovers of *peer*, or of every peer if None, at once: the forwarder has lost or wiped its
        keypairs.
        """
        for former in (*self._begun, *(each for _, each, _ in self._running)):
            if peer in {None, former.number}:
                former.wipe()
        self._begun = [each for each in self._begun if peer not in {None, each.number}]
        self._running = [each for each in self._running if peer not in {None, each[1].number}]
