"""The last timestamps of peers that have been removed, by public key.

A peer that comes back would otherwise begin with none, so that anyone who recorded its initiations could send them
again. Where the peers come from a store, anyone who can write there could remove a peer and add it again at any time.
"""

from __future__ import annotations

from overlay.wire.messages import TIMESTAMP_SIZE

# Ours
MOST = 4096  # the most recent; more than peers of a network go and come back
NONE = bytes(TIMESTAMP_SIZE)


class Remembered:
    """Timestamps of initiations (TAI64N) by public key."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[bytes, bytes] = {}  # the one that was kept first is first

    def keep(self, public_key: bytes, timestamp: bytes) -> None:
        """Remember the greatest *timestamp* of a peer that goes."""
        if timestamp == NONE:
            return
        self._kept.pop(public_key, None)
        self._kept[public_key] = timestamp
        if len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]

    def take(self, public_key: bytes) -> bytes:
        """Return what was kept of a peer that comes, NONE if nothing was."""
        return self._kept.pop(public_key, NONE)
