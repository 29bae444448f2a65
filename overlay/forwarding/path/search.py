"""The search for the largest packet that reaches a peer, by probes of chosen sizes, in the manner of RFC 8899.

It begins by assuming that all packets of the tun pass, because the tun's MTU fits the underlay as far as the host knows
it.  Either a probe of that size is answered, which confirms the assumption, or smaller sizes are tried as well.  A size
counts as too large once MAX_PROBES probes of it were lost while smaller ones were answered; where nothing is answered
at all, the peer is gone, and nothing is learnt.  A known size is confirmed again and again, so that a path that became
narrower without an error (a black hole) is noticed within seconds; after a while larger sizes are tried again.  A peer
that is gone is sent only the smallest probes, until it answers one: packets may flow to it for as long as its session.

Probes begin only while packets flow.  A search that has begun continues to its end, because senders whose packets
vanish stay silent for longer and longer.  Each round sends all its sizes at once: losing one probe of each tells as
much as losing them one after the other, and TCP is waiting.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from overlay.session.constants import Timing

# Specification (RFC 8899 section 5.1.2)
MAX_PROBES = 3

# Ours
STEP = 16  # bytes; sizes are multiples of it, so that a packet that fits still does once it is padded
LEAST = 512  # bytes; smaller sizes are not searched
# What underlays take: LEAST to see that the peer answers, then 1280 bytes, 1360, 1400 and so on, less headers
CANDIDATES = (LEAST, 1200, 1280, 1312, 1344, 1376, 1408)
SHORTEST_WAIT = 0.2  # seconds for an answer, at least; three round trips, if that is longer
SILENT_ROUNDS = 5  # without any answer, after which the peer is taken for gone


class ProbeToSend(NamedTuple):
    """A probe to send: a message that makes a packet of *size* bytes."""

    identifier: int
    size: int


class _Sent(NamedTuple):
    size: int
    at: float


class PathMtu:
    """What is known of the path to one peer.  Sizes are bytes of packets; times are seconds of CLOCK_BOOTTIME."""

    def __init__(self, most: int, timing: Timing | None = None) -> None:
        """*most* is the largest packet that is sent: the tun's MTU."""
        self._timing = timing or Timing()
        self.most = self.size = most  # size: the largest packet that may be sent
        self.is_confirmed = False  # a probe of that size was answered
        self.due = -math.inf  # when round() is to be called
        self._round_trip = 0.0
        self._identifier = 0  # of the probe sent last
        self._raise_at = math.inf
        self._is_searching, self._low, self._high = True, 0, most + 1
        self._is_gone = False  # the last search was not answered at all
        self._rounds, self._round_at = 0, 0.0
        self._tries: dict[int, int] = {}  # by size: how many probes were lost
        self._sent: dict[int, _Sent] = {}  # by identifier: those not answered
        self._round: set[int] = set()  # the sizes of the last round that were not answered

    def restart(self, most: int, now: float) -> None:
        """Begin again: the path may be another, or the tun has the MTU *most* now."""
        self.size = most if self.size in {self.most, most} or self.size > most else self.size
        self.most, self.is_confirmed, self.due, self._is_gone = most, False, now, False
        self._begin(0, most + 1)

    def round(self, now: float, *, is_flowing: bool) -> list[ProbeToSend]:
        """Return the probes to send now, once ``due`` has come; *is_flowing* tells whether there are packets."""
        if now < self.due:
            return []
        if not self._is_searching:
            if not is_flowing:
                self.due = now + self._timing.path_confirm_time
                return []
            if now >= self._raise_at:
                self._begin(self.size, self.most + 1)
            else:
                self._begin(0, self.size + 1)
        elif self._rounds == 0 and not is_flowing:
            self.due = now + self._timing.path_confirm_time
            return []
        self._conclude()
        sizes = self._sizes() if self._low or self._rounds < SILENT_ROUNDS else []
        if not sizes:
            self._settle(now)
            return []
        self._rounds += 1
        self._round = set(sizes)
        self._round_at, self.due = now, now + self._patience
        probes = []
        for size in sizes:
            self._identifier += 1
            self._sent[self._identifier] = _Sent(size, now)
            probes.append(ProbeToSend(self._identifier, size))
        return probes

    def answered(self, identifier: int, now: float) -> bool:
        """Take the answer to a probe; return False, with nothing changed, if none of this search waits for it."""
        sent = self._sent.pop(identifier, None)
        if sent is None:
            return False
        self._is_gone = False
        sample = now - sent.at
        self._round_trip = sample if not self._round_trip else self._round_trip * 0.75 + sample * 0.25
        self._round.discard(sent.size)
        if sent.size >= self._high:  # it was only late
            self._high = self.most + 1
            self._tries = {size: count for size, count in self._tries.items() if size < sent.size}
        self._low = max(self._low, sent.size)
        self._apply()
        self.due = min(self.due, self._round_at + self._patience) if self._round else now
        return True

    def refused(self, identifier: int) -> None:
        """Note that a probe is too large for this host itself: its device does not take such a datagram.

        If this is the largest probe, the tun's MTU was chosen larger than the underlay's: then the kernel fragments
        datagrams, which are not lost, and there is nothing to search.
        """
        sent = self._sent.pop(identifier, None)
        if sent is not None and sent.size == self.most:
            self.size, self.is_confirmed, self.due = self.most, False, math.inf
            self._sent = {}
        elif sent is not None:
            self._tries[sent.size] = MAX_PROBES

    @property
    def _patience(self) -> float:
        if not self._round_trip:
            return self._timing.path_probe_time
        return max(min(SHORTEST_WAIT, self._timing.path_probe_time), 3 * self._round_trip)

    def _begin(self, low: int, high: int) -> None:
        """Search between *low*, which is known to pass, and *high*, which is not."""
        self._is_searching, self._low, self._high = True, low, high
        self._rounds, self._round_at = 0, 0.0
        self._tries, self._sent, self._round = {}, {}, set()

    def _conclude(self) -> None:
        """Take what was not answered in the last round for lost."""
        for size in self._round:
            self._tries[size] = self._tries.get(size, 0) + 1
        self._round = set()
        if self._low:
            lost = [size for size, count in self._tries.items() if count >= MAX_PROBES and size > self._low]
            self._high = min([self._high, *lost])
        self._apply()

    def _apply(self) -> None:
        if self._low and (self._low > self.size or self._high <= self.size):
            self.size = self._low
        self.is_confirmed = self.is_confirmed or self._low == self.size

    def _sizes(self) -> list[int]:
        """Return the sizes to try next; none if the search is over."""
        wanted = (
            {self.size, self.most, *(CANDIDATES if self._rounds else ())} if not self._is_gone else {LEAST}
        )
        sizes = {size for size in wanted if self._low < size < self._high}
        if not sizes:
            middle = (self._low + self._high) // 2 // STEP * STEP
            sizes = {middle} if middle > self._low >= LEAST else set()
        return sorted(sizes)

    def _settle(self, now: float) -> None:
        self._is_searching = False
        if not self._low:
            self.is_confirmed, self._is_gone = False, True
        if self.size == self.most:
            self._raise_at = math.inf
        elif self._raise_at == math.inf or now >= self._raise_at:
            self._raise_at = now + self._timing.path_raise_time
        self._sent = {}
        self.due = now + self._timing.path_confirm_time
