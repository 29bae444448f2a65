"""A keypair at work: its AEADs, its send counter and its replay window.

The send counter is the nonce and belongs to the keypair alone; nothing else hands one out, and a keypair is never
restored, so no counter is used twice with a key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.crypto.replay import ReplayWindow
from overlay.forwarding.bulk import Bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.forwarding.peer import Peer
    from overlay.session.constants import Timing
    from overlay.session.outputs import InstallKeypair


# Ours
CROSSING_TIME = 5.0  # seconds; keypairs made closer together came of handshakes that crossed


class Keypair:
    """The two transport keys of one handshake.  Times are those of CLOCK_BOOTTIME, in seconds.

    The four moments are plain numbers so that the packet path compares and does nothing else: from *rekey_at* on a
    send asks for a new handshake, from *rekey_receive_at* a receive does, both for the initiator only and once;
    from *reject_at* the keypair neither seals nor opens.
    """

    __slots__ = (
        "bulk", "counter", "created", "is_initiator", "local_index", "open", "peer", "reject_at", "rekey_at",
        "rekey_receive_at", "remote_index", "seal", "window",
    )  # fmt: skip

    def __init__(
        self, peer: Peer, made: InstallKeypair, timing: Timing, ciphers: Sequence[int] = (), mtu: int = 0
    ) -> None:
        """*ciphers* are those of bulk units, *mtu* what a segment of one may make; without ciphers there are none."""
        self.peer = peer
        self.local_index, self.remote_index = made.local_index, made.remote_index
        self.seal = ChaCha20Poly1305(made.send_key).encrypt_into
        self.open = ChaCha20Poly1305(made.receive_key).decrypt_into
        self.bulk = Bulk(made.unit_keys, ciphers, made.remote_index, mtu) if ciphers else None
        self.counter = 0
        self.window = ReplayWindow()
        self.is_initiator, self.created = made.is_initiator, made.created
        self.reject_at = made.created + timing.reject_after_time
        self.rekey_at = made.created + timing.rekey_after_time if made.is_initiator else math.inf
        # Old enough at a receive that an answer, a retry and a keepalive may no longer fit before the end.
        margin = timing.keepalive_timeout + timing.rekey_timeout
        self.rekey_receive_at = self.reject_at - margin if made.is_initiator else math.inf


class Keypairs:
    """The three slots of a peer: previous, current, next (whitepaper section 6.3).

    Each method returns the keypairs that left their slot, for the caller to forget.  *heard* is not among them: the
    peer may have more on its way under it.  After handshakes that crossed, it need not be the one we send with.
    """

    __slots__ = ("current", "has_crossed", "heard", "next", "previous")

    def __init__(self) -> None:
        self.has_crossed = False  # whether current and next came of handshakes that crossed
        self.heard: Keypair | None = None  # under which something was received last; the packet path sets it
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None

    def install(self, keypair: Keypair) -> list[Keypair]:
        """Put a new keypair into use.

        The initiator's becomes current, for its peer has it already; one that waits meanwhile has been overtaken,
        unless the two handshakes crossed: then the peer may use either.  The responder's waits until something is
        received under it; the previous one goes, for two may wait only one behind the other.
        """
        # The peer's initiation before its answer to ours: it made both keypairs in one life.  The other way round,
        # it may have begun anew in between, and know nothing of the first.
        self.has_crossed = (
            keypair.is_initiator
            and self.next is not None
            and keypair.created - self.next.created <= CROSSING_TIME
        )
        if self.has_crossed:
            previous, gone = self._older_heard(), [self.previous, self.current]
            self.current = keypair
        elif keypair.is_initiator:
            previous = self.heard or self.next or self.current
            gone = [self.previous, self.current, self.next]
            self.next, self.current = None, keypair
        else:
            previous = self.heard if self.heard is not self.current else None
            gone = [self.next, self.previous]
            self.next = keypair
        self.previous = previous
        return [old for old in gone if old is not None and old is not previous]

    def promote(self) -> list[Keypair]:
        """Make the waiting keypair current: its peer has just used it."""
        previous, gone = self._older_heard(), [self.previous, self.current]
        self.previous, self.current, self.next = previous, self.next, None
        return [old for old in gone if old is not None and old is not previous]

    def loses_crossing(self) -> bool:
        """Return whether ``next`` is to stay where it is, for its peer will go over to ``current``.

        Where both ends began at once there are two keypairs.  Each end is the initiator of one, and only an initiator
        renews by time, so both must end up with the same: that whose initiator has the smaller index, which both
        know.  An implementation that keeps one of the two by itself never uses the other.
        """
        current, waiting = self.current, self.next
        if not self.has_crossed or current is None or waiting is None:
            return False
        return current.local_index < waiting.remote_index

    def clear(self) -> list[Keypair]:
        """Empty all slots."""
        gone = [keypair for keypair in (self.previous, self.current, self.next) if keypair is not None]
        self.previous = self.current = self.next = self.heard = None
        return gone

    def _older_heard(self) -> Keypair | None:
        """Return which of previous and current the peer may go on to use for a while, with another in its place."""
        return self.previous if self.previous is not None and self.previous is self.heard else self.current
