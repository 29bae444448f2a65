"""The state of one peer: where it is, its keypairs, waiting payloads, and its timers (whitepaper section 6)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.crypto.transport import TransportKeys

if TYPE_CHECKING:
    from overlay.session.constants import Timing
    from overlay.session.outputs import InstallKeypair
    from overlay.wire.addresses import Sockaddr

# Ours
STAGED = 128  # packets that wait for a session, as in other implementations; the oldest is dropped


class Keypair:
    """The keys of one handshake, and when they are renewed and refused."""

    __slots__ = ("index", "is_initiator", "keys", "reject_at", "rekey_at", "rekey_receive_at")

    def __init__(self, made: InstallKeypair, timing: Timing) -> None:
        self.keys = TransportKeys(made.remote_index, made.send_key, made.receive_key)
        self.index, self.is_initiator = made.local_index, made.is_initiator
        self.reject_at = made.created + timing.reject_after_time
        # Only an initiator renews by time.
        self.rekey_at = made.created + timing.rekey_after_time if made.is_initiator else math.inf
        margin = timing.keepalive_timeout + timing.rekey_timeout
        self.rekey_receive_at = self.reject_at - margin if made.is_initiator else math.inf


@dataclass(slots=True)
class DevicePeer:
    """One peer of a device, by its *number* in the sessions.  *keepalive* is in seconds, 0 for none."""

    number: int
    public_key: bytes
    endpoint: Sockaddr | None
    keepalive: float
    current: Keypair | None = None
    waiting: Keypair | None = None
    """Made as responder: nothing is sent under it before a message is received under it (section 6.3)."""
    previous: Keypair | None = None
    staged: deque[bytes] = field(default_factory=lambda: deque(maxlen=STAGED))
    answer_at: float = math.inf
    """When to return a keepalive, because packets came and none went (section 6.5)."""
    doubt_at: float = math.inf
    """When to start a handshake, because packets went and nothing came (section 6.5)."""
    persist_at: float = math.inf
    """When a persistent keepalive is due."""

    @property
    def deadline(self) -> float:
        """Return when a timer is due; math.inf if none is."""
        return min(self.answer_at, self.doubt_at, self.persist_at)

    def install(self, keypair: Keypair) -> list[Keypair]:
        """Put a new keypair into use; return those that are no longer used."""
        if keypair.is_initiator:
            # If handshakes crossed, the peer may use the one that waits here.
            older = self.waiting or self.current
            gone = [self.previous, self.current if older is self.waiting else None]
            self.previous, self.current, self.waiting = older, keypair, None
        else:
            gone = [self.waiting]
            self.waiting = keypair
        return [each for each in gone if each is not None]

    def promote(self) -> list[Keypair]:
        """Send with the keypair that waited, because the peer used it; return the one that is no longer used."""
        gone = self.previous
        self.previous, self.current, self.waiting = self.current, self.waiting, None
        return [] if gone is None else [gone]

    def clear(self) -> list[Keypair]:
        """Forget all keypairs, and return them."""
        gone = [each for each in (self.current, self.waiting, self.previous) if each is not None]
        self.current = self.waiting = self.previous = None
        return gone

    def usable(self, now: float) -> Keypair | None:
        """Return the keypair to send with; None if there is none."""
        keypair = self.current
        return None if keypair is None or now >= keypair.reject_at or keypair.keys.is_used_up else keypair

    def sent(self, now: float, timing: Timing, *, is_data: bool) -> None:
        """Set the timers after sending."""
        self.answer_at = math.inf
        if is_data and self.doubt_at == math.inf:
            self.doubt_at = now + timing.keepalive_timeout + timing.rekey_timeout
        self._persist(now)

    def received(self, now: float, timing: Timing, *, is_data: bool) -> None:
        """Set the timers after receiving an authentic message."""
        self.doubt_at = math.inf
        if is_data and self.answer_at == math.inf:
            self.answer_at = now + timing.keepalive_timeout
        self._persist(now)

    def _persist(self, now: float) -> None:
        self.persist_at = now + self.keepalive if self.keepalive else math.inf
