"""Token buckets by key, in bounded memory: for ICMP errors, and for handshakes under load."""

from __future__ import annotations

import math

# Ours
KEYS = 4096  # keys remembered; in a flood from more addresses than that, new ones wait until others have been idle


class TokenBuckets:
    """For each key, *rate* permits a second and *burst* at once.  Monotonic seconds come from outside."""

    def __init__(self, rate: float, burst: float, keys: int = KEYS) -> None:
        self._rate, self._burst, self._keys = rate, burst, keys
        self._state: dict[bytes, tuple[float, float]] = {}
        self._swept_at = -math.inf

    def allow(self, key: bytes, now: float) -> bool:
        """Take one permit of *key* and return whether there was one."""
        tokens, since = self._state.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if key not in self._state and len(self._state) >= self._keys and not self._forget_idle(now):
            return False
        if tokens < 1:
            self._state[key] = (tokens, now)
            return False
        self._state[key] = (tokens - 1, now)
        return True

    def _forget_idle(self, now: float) -> bool:
        """Forget the keys whose bucket is full again: they behave as unknown ones.  Return whether there is room.

        A flood may ask for every packet, so the look at all keys is taken once in a while only.
        """
        full = self._burst / self._rate
        if now - self._swept_at >= full / 2:
            self._swept_at = now
            self._state = {key: value for key, value in self._state.items() if now - value[1] < full}
        return len(self._state) < self._keys


class Bucket:
    """One bucket of *rate* permits a second, *burst* of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._permits, self._since = burst, -math.inf

    def available(self, now: float) -> int:
        """Return how many permits there are, below 0 how many are owed."""
        self._permits = min(self._burst, self._permits + (now - self._since) * self._rate)
        self._since = now
        return math.floor(self._permits)

    def take(self, count: int, now: float) -> bool:
        """Take *count* permits and return whether there were that many.

        More than there can ever be are taken from a full bucket, and owed: the next wait until that is made up for.
        """
        self.available(now)
        if self._permits < min(count, self._burst):
            return False
        self._permits -= count
        return True
