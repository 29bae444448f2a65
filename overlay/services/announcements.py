"""When a host tells a link, unsolicited, that it now has an address: at once, again soon, and rarely from then on.

Hosts and routers keep what they have learnt for minutes.  Switches may lose a single frame, or forget sooner.  Times
are seconds of any clock that only moves forward.
"""

from __future__ import annotations

import math

# Ours; the numbers are those of keepalived, except for the last, which it leaves out by default
BURST = 5  # frames for each address
AGAIN = 5.0  # seconds until a second burst
REFRESH = 60.0  # seconds between single frames later


class Announcements:
    """The schedule for the addresses that a host holds together."""

    def __init__(self, refresh: float = REFRESH) -> None:
        self._refresh = refresh
        self._due = math.inf
        self._bursts = 0  # still to come

    def begin(self, now: float) -> None:
        """Announce from now on: this host now has the addresses."""
        self._due, self._bursts = now, 2

    def end(self) -> None:
        """Announce no longer: another host has them."""
        self._due = math.inf

    def next_deadline(self) -> float:
        """Return when handle_deadline() has something to announce; infinity if never."""
        return self._due

    def handle_deadline(self, now: float) -> int:
        """Return how many times each address should be announced now."""
        if now < self._due:
            return 0
        self._due = now + (AGAIN if self._bursts == 2 else self._refresh)
        if not self._bursts:
            return 1
        self._bursts -= 1
        return BURST
