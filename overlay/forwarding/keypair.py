"""A keypair at work: its AEADs, its send counter and its replay window.

The send counter is the nonce and belongs to the keypair alone; nothing else hands one out, and a keypair is never
restored, so no counter is used twice with a key.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.forwarding import state
from overlay.forwarding.bulk.capability import Bulk
from overlay.session.constants import REJECT_AFTER_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from overlay.forwarding.bulk.asking import Asking
    from overlay.forwarding.lane.session import SessionLanes
    from overlay.session.constants import Timing
    from overlay.session.outputs import InstallKeypair


class Owner(Protocol):
    """What a keypair needs of the peer that it is shared with."""

    asking: Asking
    keypairs: Keypairs[Any]
    state: state.PeerState


P = TypeVar("P", bound=Owner)

GOES_OVER_WITHIN = 5.0
"""Seconds that a peer has to go over to the keypair that both ends are to use: it needs one packet from us."""

NONCE = struct.Struct("<4xQ").pack  # RFC 8439 section 2.8: 96 bits, 32 of zeros and then the counter


class Keypair(state.KeypairState, Generic[P]):
    """The two transport keys of one handshake, or of a lane of its session.  Times are those of CLOCK_BOOTTIME,
    in seconds.

    The four moments are plain numbers so that the packet path compares and does nothing else: from *rekey_at* on a
    send asks for a new handshake, from *rekey_receive_at* a receive does, both for the initiator only and once;
    from *reject_at* the keypair neither seals nor opens.
    """

    __slots__ = (
        "_by_lane", "created", "initiated", "is_initiator", "lanes", "open", "peer", "seal", "was_beside",
    )  # fmt: skip

    bulk: Bulk | None
    session: Keypair[P] | None

    def __init__(
        self,
        peer: P,
        made: InstallKeypair,
        timing: Timing,
        ciphers: Sequence[int] = (),
        mtu: int = 0,
        *,
        session: Keypair[P] | None = None,
        lane: int = 0,
    ) -> None:
        """*ciphers* are those of bulk units, *mtu* what a segment of one may make; without ciphers there are none.

        *session* is given for that of a *lane* other than the first: the keypair of the handshake.
        """
        self.peer = peer
        self.session, self.lane = session, lane
        self.was_beside = False  # the port of the lane, at the host of the session (lane.beside)
        self.lanes: SessionLanes[Keypair[P]] | None = None  # those of its session, where this node has some
        self._by_lane: list[Keypair[P] | None] = []
        self._state = peer.state
        self._keys(made.local_index, made.remote_index, made.send_key, made.receive_key)
        self.seal = ChaCha20Poly1305(made.send_key).encrypt_into
        self.open = ChaCha20Poly1305(made.receive_key).decrypt_into
        asking = peer.asking if session is None else None
        self.bulk = Bulk(made.unit_keys, ciphers, made.remote_index, mtu, asking) if ciphers else None
        if self.bulk is not None and session is not None:
            self.bulk.is_for_lane()
        self.counter = 0
        self.window = state.ReplayWindow()
        self.is_initiator, self.initiated = made.is_initiator, made.initiated
        self.created: float = made.created
        young = peer.keypairs.current
        if (
            session is None
            and not made.is_initiator
            and young is not None
            and made.created < young.created + timing.rekey_after_time / 2
        ):
            peer.asking.again()  # it may have been started again, now as an agent of this project
        self.reject_at = made.created + timing.reject_after_time
        self.rekey_at = made.created + timing.rekey_after_time if made.is_initiator else math.inf
        # Old enough at a receive that an answer, a retry and a keepalive may no longer fit before the end.
        margin = timing.keepalive_timeout + timing.rekey_timeout
        self.rekey_receive_at = self.reject_at - margin if made.is_initiator else math.inf

    def all(self) -> list[Keypair[P]]:
        """Return this keypair and those of the other lanes."""
        return [self, *(self.lanes.keypairs if self.lanes is not None else ())]

    def send_by(self, by_lane: list[Keypair[P] | None]) -> None:
        """Let each lane of this node send by one of these; None is this one."""
        self._by_lane = by_lane
        self._send_by(by_lane)

    def of_lane(self, number: int) -> Keypair[P]:
        """Return that by which the lane *number* of this node sends."""
        return (self._by_lane[number] if number < len(self._by_lane) else None) or self

    def end_lanes(self) -> None:
        """Forget the lanes, with their keys."""
        self.lanes = None
        self.send_by([])

    def crossed(self, other: Keypair[P]) -> bool:
        """Return whether *other* is from an initiation of the peer while ours, for this keypair, was under way.

        Then the peer made both in one life.  Had it restarted in between, it would know nothing of the first.
        """
        return self.is_initiator and not other.is_initiator and self.initiated < other.created <= self.created

    def yields_to(self, other: Keypair[P]) -> bool:
        """Return whether both ends should use *other* instead of this keypair, because their handshakes crossed.

        Each end is the initiator of one of the two, and only an initiator renews by time, so both must end up with the
        same: that whose initiator has the smaller index, which both know.
        """
        have_crossed = self.crossed(other) or other.crossed(self)
        return have_crossed and other._initiator_index < self._initiator_index

    @property
    def _initiator_index(self) -> int:
        return self.local_index if self.is_initiator else self.remote_index


class Keypairs(state.KeypairsState, Generic[P]):
    """The three slots of a peer: previous, current, next (whitepaper section 6.3).

    Each method returns the keypairs that left their slot, for the caller to forget.  *heard* is not among them: the
    peer may have more on its way under it.  After handshakes that crossed, it need not be the one we send with.
    """

    __slots__ = ("heard", "next", "previous")

    current: Keypair[P] | None
    settled: Keypair[P] | None
    """Under which a further message moves nothing here; the packet path sets it, each method ends it."""

    def __init__(self) -> None:
        # Under which something was received last; the packet path sets it.
        self.heard: Keypair[P] | None = None
        self.settled = None
        self.previous: Keypair[P] | None = None
        self.current = None
        self.next: Keypair[P] | None = None

    def usable(self, now: float, count: int = 1, lane: int = 0) -> Keypair[P] | None:
        """Return the keypair that may seal *count* messages at *now*; None if there is none, or it is used up.

        *lane* is the number of the lane of this node that sends them.
        """
        keypair = self.current
        if lane and keypair is not None:
            keypair = keypair.of_lane(lane)
        if keypair is None or now >= keypair.reject_at or keypair.counter + count > REJECT_AFTER_MESSAGES:
            return None
        return keypair

    def install(self, keypair: Keypair[P]) -> list[Keypair[P]]:
        """Put a new keypair into use.

        The initiator's becomes current, for its peer has it already, unless the peer was heard under one whose
        handshake crossed and which both are to use; one that waits goes on to wait, for the peer may use it.  The
        responder's waits until something is received under it; the one that waited before goes.
        """
        current, waiting = self.current, self.next
        self.settled = None
        if current is not None and keypair.yields_to(current):
            previous, gone = self.previous, [waiting]
            self.next = keypair
        elif keypair.is_initiator:
            previous, gone = self._older_heard(), [self.previous, current]
            self.current = keypair
        else:
            previous = self.heard if self.heard is not current else None
            gone = [waiting, self.previous]
            self.next = keypair
        self.previous = previous
        return [old for old in gone if old is not None and old is not previous]

    def promote(self) -> list[Keypair[P]]:
        """Make the waiting keypair current: its peer has just used it."""
        current, waiting = self.current, self.next
        assert waiting is not None
        gone = [self.previous, current]
        # Of two that crossed the other stays: the peer may go over to it yet.
        previous = current if current is not None and current.yields_to(waiting) else self._older_heard()
        self.previous, self.current, self.next, self.settled = previous, waiting, None, None
        return [old for old in gone if old is not None and old is not previous]

    def keeps_next_waiting(self, now: float) -> bool:
        """Return whether ``next`` should stay where it is although the peer uses it at *now*.

        The peer will go over to ``current``, which is newer, or is that of two that crossed which both are to use. An
        implementation that keeps only one of the two never uses the other.
        """
        current, waiting = self.current, self.next
        if current is None or waiting is None or self._is_overdue(waiting, now):
            return False
        return waiting.yields_to(current) or (
            waiting.created < current.created and not current.yields_to(waiting)
        )

    def follow(self, keypair: Keypair[P], now: float) -> None:
        """Go back to *keypair*, which the peer used at *now*, if it is ``previous`` only because handshakes crossed.

        A peer that knows of it would not have used it.  To one that had our answer before our initiation they did not
        cross, and it stays with the newer.
        """
        current = self.current
        if keypair is not self.previous or current is None:
            return
        if keypair.yields_to(current) or self._is_overdue(keypair, now):
            self.previous, self.current, self.settled = current, keypair, None

    def has_settled(self, keypair: Keypair[P], now: float) -> bool:
        """Return whether further messages under *keypair*, which the peer used at *now*, would move nothing here."""
        current = self.current
        return (
            keypair is current
            or current is None
            or now >= self._last_made(current, keypair) + GOES_OVER_WITHIN
        )

    def clear(self) -> list[Keypair[P]]:
        """Empty all slots."""
        gone = [keypair for keypair in (self.previous, self.current, self.next) if keypair is not None]
        self.previous = self.current = self.next = self.heard = self.settled = None
        return gone

    def remove(self, indices: Collection[int]) -> list[Keypair[P]]:
        """Empty the slots of the keypairs with these local indices."""
        gone = [
            keypair
            for keypair in (self.previous, self.current, self.next)
            if keypair is not None and keypair.local_index in indices
        ]
        self.previous, self.current, self.next, self.heard = (
            None if keypair in gone else keypair
            for keypair in (self.previous, self.current, self.next, self.heard)
        )
        self.settled = None
        return gone

    def _is_overdue(self, keypair: Keypair[P], now: float) -> bool:
        """Return whether the peer uses *keypair* for so long that it is for us to go over.

        An answer overtook an initiation, so that to one end the handshakes crossed and to the other they did not.  The
        smaller index of their initiators decides here too, and therefore at one end only.
        """
        current = self.current
        if current is None or current.is_initiator == keypair.is_initiator:
            return False
        are_of_one_time = abs(current.created - keypair.created) < GOES_OVER_WITHIN
        is_time = now >= self._last_made(current, keypair) + GOES_OVER_WITHIN
        return are_of_one_time and is_time and keypair._initiator_index < current._initiator_index

    @staticmethod
    def _last_made(one: Keypair[P], other: Keypair[P]) -> float:
        return max(one.created, other.created)

    def _older_heard(self) -> Keypair[P] | None:
        """Return which of previous and current the peer may continue to use for a while, with another in its place."""
        return self.previous if self.previous is not None and self.previous is self.heard else self.current
