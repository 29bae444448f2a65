"""The last timestamps of peers that were removed, by public key.

Otherwise a peer that is added again would start without one, and anyone who recorded its initiations could replay them.
If the peers come from a store, anyone who can write there could remove a peer and add it again at any time.
"""

from __future__ import annotations

from overlay.wire.messages import TIMESTAMP_SIZE

# Ours
MOST = 4096  # the most recent are kept: more than the peers of a network that leave and come back
NONE = bytes(TIMESTAMP_SIZE)


class Remembered:
    """Timestamps of initiations (TAI64N) by public key."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[bytes, bytes] = {}  # the oldest entry comes first

    def keep(self, public_key: bytes, timestamp: bytes) -> None:
        """Remember the greatest *timestamp* of a peer that is removed."""
        if timestamp == NONE:
            return
        self._kept.pop(public_key, None)
        self._kept[public_key] = timestamp
        if len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]

    def take(self, public_key: bytes) -> bytes:
        """Return the timestamp kept for a peer that is added, and no longer keep it; NONE if there is none."""
        return self._kept.pop(public_key, NONE)
