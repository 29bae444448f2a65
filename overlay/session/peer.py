"""The handshakes with one peer: the current attempt, the last completed handshake, and when to try again.

Our attempt to reach the peer and our answer to an attempt of the peer are independent here.  If both sides start at the
same time, each answers the other and accepts the other's answer: this yields two keypairs, both known at both ends, and
traffic starts after one round trip.  Other implementations keep a single handshake state and drop their own attempt
when the peer's arrives; with them, the result is one keypair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.crypto import noise
from overlay.crypto.cookies import CookieHolder
from overlay.errors import PacketError, ReplayedInitiationError
from overlay.session.attempts import Attempt
from overlay.session.constants import KEYPAIRS, RECALL_INTERVAL
from overlay.session.identities import Acquaintance
from overlay.session.outputs import (
    Answered,
    Completed,
    GiveUp,
    InstallKeypair,
    Output,
    Retrying,
    Transmit,
    Wipe,
)
from overlay.session.secret_bytes import overwrite, preshared_bytes
from overlay.session.tai64n import seconds_between
from overlay.wire.bulk import CIPHERS, key_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.session.attempts import Pace
    from overlay.session.constants import Timing
    from overlay.session.identities import Identities, Identity
    from overlay.session.indices import Indices
    from overlay.session.tai64n import Tai64nClock
    from overlay.wire.addresses import Sockaddr
    from overlay.wire.messages import CookieReply, Response

# Ours
LATEST = 30.0  # seconds; the network delays no message for longer
UNCONFIRMED = 3  # answers in a row that the peer did not use; a network rarely loses that many


@dataclass(frozen=True, slots=True)
class LocalNode:
    """What all peers of a node share."""

    identities: Identities
    entropy: Callable[[int], bytes]
    clock: Tai64nClock
    timing: Timing
    indices: Indices[PeerHandshakes]
    pace: Pace


@dataclass(frozen=True, slots=True)
class HandshakeStatus:
    """The state of a peer's handshakes, for the status.

    Of the handshakes since the last completed one, *unconfirmed* were answered by this node and never used by the peer,
    and *refused* are responses of the peer that could not be opened; *doubted_at* is the time of the last of either.
    *outdated* counts initiations with older timestamps since the last accepted one; the last of them was *behind*
    seconds older, at *outdated_at*.
    """

    is_running: bool
    retries: int
    is_given_up: bool
    completed_at: float | None
    unconfirmed: int = 0
    refused: int = 0
    doubted_at: float = -math.inf
    outdated: int = 0
    behind: float = 0.0
    outdated_at: float = -math.inf
    own_key: bytes | None = None
    """Our public key in the last handshake; None before the first."""

    @property
    def has_clock_behind(self) -> bool:
        """Return whether the peer's clock was set back, as opposed to its messages being delayed."""
        return self.outdated > 0 and self.behind > LATEST

    def is_doubted(self, now: float, patience: float) -> bool:
        """Return whether handshakes in the last *patience* seconds were answered but led to no common keys."""
        is_enough = self.unconfirmed >= UNCONFIRMED or self.refused > 0
        return is_enough and now - self.doubted_at < patience


@dataclass(slots=True)
class _Outdated:
    # Initiations with older timestamps since the last accepted one, and what was done about them.
    count: int = 0
    behind: float = 0.0  # seconds, of the last
    at: float = -math.inf  # when that one arrived
    recalled_at: float = -math.inf  # when the peer was called because of one


class PeerHandshakes:
    """All handshakes with one peer.  After each method call, ask for ``deadline`` again."""

    __slots__ = (
        "_acquaintance",
        "_answers",
        "_attempt",
        "_completed_at",
        "_cookies",
        "_doubted_at",
        "_initiation_consumed_at",
        "_initiation_sent_at",
        "_is_given_up",
        "_keypair_indices",
        "_node",
        "_outdated",
        "_pause",
        "_preshared_key",
        "_refused",
        "_unconfirmed",
        "_wipe_at",
        "greatest_timestamp",
        "number",
        "public_key",
    )

    def __init__(
        self, node: LocalNode, number: int, public_key: bytes, preshared_key: bytes | None, after: bytes
    ) -> None:
        """Add the peer with *public_key*, whose initiations must have timestamps *after* this one."""
        self.number = number
        self.public_key = public_key
        self._node = node
        self._preshared_key = preshared_bytes(preshared_key)
        self._acquaintance = Acquaintance(node.identities, public_key)
        self._cookies: CookieHolder | None = None  # made on first use
        self._attempt: Attempt | None = None
        self._keypair_indices: dict[int, None] = {}  # in the order of creation
        self._answers: dict[int, tuple[float, Sockaddr]] = {}  # keypairs that the peer has not used, by index
        self._unconfirmed = self._refused = 0
        self._doubted_at = -math.inf
        self._outdated = _Outdated()
        self.greatest_timestamp = after
        self._initiation_consumed_at = -math.inf
        self._initiation_sent_at = -math.inf
        self._completed_at: float | None = None
        self._is_given_up = False
        self._pause = node.timing.first_pause  # between attempts at a peer that was given up
        self._wipe_at = math.inf

    # Requests of the node

    def want(self, now: float, *, is_idle: bool, is_greeting: bool = False) -> list[Output]:
        """Start an attempt unless one is running.

        A peer that was given up and *is_idle*, because there are only keepalives to send, is called with growing
        pauses.  One that was not given up, or *is_greeting*, is called at the pace of all such peers.  Either ends as
        soon as packets wait.
        """
        attempt, timing = self._attempt, self._node.timing
        is_awaited = not (is_idle or is_greeting)
        if attempt is not None and attempt.is_paced and is_awaited:
            attempt.hurry(max(now, self._initiation_sent_at + timing.rekey_timeout))
            return self._go_on(attempt, now) if attempt.due_at <= now else []
        if (attempt is not None and (is_idle or not attempt.is_idle)) or not self._acquaintance.has_secret():
            return []
        self._end_attempt()
        is_idle = is_idle and self._is_given_up
        self._is_given_up = is_idle
        # At most one initiation in REKEY_TIMEOUT goes to a peer (whitepaper section 6.4).
        due_at = max(now, self._initiation_sent_at + (self._pause if is_idle else timing.rekey_timeout))
        self._attempt = Attempt(began_at=now, due_at=due_at, is_idle=is_idle, is_awaited=is_awaited)
        return [self._initiate(self._attempt, now)] if due_at <= now else []

    def set_preshared_key(self, preshared_key: bytes | None) -> None:
        """Use *preshared_key* from the next message on."""
        new = preshared_bytes(preshared_key)
        overwrite(self._preshared_key)
        self._preshared_key = new

    def confirm(self, index: int, now: float) -> list[Output]:
        """Record that the peer uses our keypair *index*: our own attempt is no longer needed."""
        if index not in self._keypair_indices:
            return []
        self._end_attempt()
        answer = self._answers.pop(index, None)
        if answer is None:
            return []
        answered_at, source = answer
        self._complete(answered_at)
        return [Completed(self.number, source, False, now - answered_at, round_trip=now - answered_at)]

    def hear(self) -> None:
        """Record that a message from the peer arrived under a keypair older than our attempt."""
        self._is_given_up = False

    def retire(self, index: int) -> None:
        """Free *index*, whose keypair is gone."""
        if index in self._keypair_indices:
            del self._keypair_indices[index]
            self._answers.pop(index, None)
            self._node.indices.free(index)

    def start_over(self) -> None:
        """End the attempt, forget the keypairs, and let the next attempt start at once."""
        self._end_attempt()
        self._forget_keypairs()
        self._initiation_sent_at = -math.inf

    def take_leave(self) -> list[int]:
        """End the attempt for good; return the indices of the keypairs that are still in use."""
        self._end_attempt()
        self._answers.clear()
        return list(self._keypair_indices)

    def begin_anew(self) -> None:
        """Continue as a peer of a node with a new private key, without any secret shared with the previous one."""
        self.start_over()
        self._acquaintance = Acquaintance(self._node.identities, self.public_key)
        if self._cookies is not None:
            self._cookies.wipe()
            self._cookies = None

    def wipe(self) -> None:
        """Forget everything.  Secrets in immutable bytes cannot be overwritten, only released."""
        self.start_over()
        overwrite(self._preshared_key)
        self._acquaintance.forget()
        if self._cookies is not None:
            self._cookies.wipe()

    # Messages from the peer

    def consume_initiation(
        self, opened: noise.OpenedStatic, identity: Identity, source: Sockaddr, now: float
    ) -> list[Output]:
        """Answer an initiation to *identity*.  Raises PacketError if it is not from the peer, is old, or follows the
        last one too soon.
        """
        node = self._node
        initiation = noise.open_timestamp(opened, self._acquaintance.secret(identity))
        if initiation.timestamp <= self.greatest_timestamp:
            behind = seconds_between(initiation.timestamp, self.greatest_timestamp)
            self._take_old(behind, now)
            raise ReplayedInitiationError(self.number, behind)
        if now < self._initiation_consumed_at + node.timing.initiation_interval:
            raise PacketError("initiation_flood")
        index = node.indices.draw(self.number)
        response, result = noise.create_response(
            initiation, preshared_key=self._preshared_key, sender_index=index, entropy=node.entropy
        )

        self.greatest_timestamp = initiation.timestamp
        self._acquaintance.used = identity
        self._outdated.count = 0
        self._pause = node.timing.first_pause  # it is reachable
        self._initiation_consumed_at = now
        node.indices.claim(index, self)
        remote_index = initiation.message.sender_index
        install = self._install(result, index, remote_index, source, now, is_initiator=False)
        self._answers[index] = now, source
        self._unconfirmed += 1
        self._doubted_at = now
        datagram = self._cookie_holder().add_macs(response.build(), now)
        # The keypair first: the peer may send under it as soon as it has the response.
        return [install, Transmit(self.number, datagram, endpoint=source), Answered(self.number, source)]

    def _take_old(self, behind: float, now: float) -> None:
        """Start a handshake if the timestamp of an initiation is *behind* an accepted one: the clock may have been set
        back.

        Otherwise all the peer's calls would be refused until its clock has caught up.  Since the message may be a
        replay, the call goes to the peer's last known address, and is rare.
        """
        if behind <= 0:
            return
        outdated = self._outdated
        outdated.count += 1
        outdated.behind, outdated.at = behind, now
        is_called = self._attempt is not None and not self._attempt.is_idle
        if now >= outdated.recalled_at + RECALL_INTERVAL and not is_called:
            outdated.recalled_at = now
            self._end_attempt()
            due_at = max(now, self._initiation_sent_at + self._node.timing.rekey_timeout)
            self._attempt = Attempt(began_at=now, due_at=due_at)

    def consume_response(self, message: Response, source: Sockaddr, now: float) -> list[Output]:
        """Complete our attempt.  Raises PacketError if *message* does not answer the initiation sent last."""
        attempt = self._attempt
        if attempt is None or attempt.state is None or attempt.index != message.receiver_index:
            raise PacketError("response_index")
        assert attempt.identity is not None
        try:
            result = noise.consume_response(
                attempt.state,
                message,
                static=attempt.identity.private_key,
                preshared_key=self._preshared_key,
            )
        except PacketError:
            # A sender that knew the index but not the keys is most likely the peer with another preshared key.
            self._refused += 1
            self._doubted_at = now
            raise

        self._attempt = None  # its index is the keypair's from now on
        self._acquaintance.used = attempt.identity
        self._complete(now)
        install = self._install(result, attempt.index, message.sender_index, source, now, is_initiator=True)
        took, trip = now - attempt.began_at, now - self._initiation_sent_at
        return [install, Completed(self.number, source, is_initiator=True, took=took, round_trip=trip)]

    def consume_cookie_reply(self, reply: CookieReply, now: float) -> None:
        """Keep a cookie for the next message.  Nothing is sent before the next retry (section 6.6)."""
        self._cookie_holder().consume_reply(reply, now)

    # Deadlines

    @property
    def deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return min(self._wipe_at, self._attempt.due_at if self._attempt else math.inf)

    def handle_deadline(self, now: float) -> list[Output]:
        """Send or repeat the initiation, give up, or wipe keys, as due."""
        outputs: list[Output] = []
        if self._attempt is not None and now >= self._attempt.due_at:
            outputs += self._go_on(self._attempt, now)
        if now >= self._wipe_at:
            self._forget_keypairs()
            outputs.append(Wipe(self.number))
        return outputs

    def ahead(self, now: float) -> float | None:
        """Return how many seconds the peer's clock is ahead of ours by its last accepted initiation.  None if there was
        none, or if an older one came later: then its clock was changed.
        """
        if self._initiation_consumed_at == -math.inf or self._outdated.count:
            return None
        return self._node.clock.ahead(self.greatest_timestamp, now - self._initiation_consumed_at)

    @property
    def status(self) -> HandshakeStatus:
        """Return the state of the handshakes."""
        attempt = self._attempt
        return HandshakeStatus(
            is_running=attempt is not None,
            retries=attempt.retries if attempt else 0,
            is_given_up=self._is_given_up,
            completed_at=self._completed_at,
            unconfirmed=self._unconfirmed,
            refused=self._refused,
            doubted_at=self._doubted_at,
            outdated=self._outdated.count,
            behind=self._outdated.behind,
            outdated_at=self._outdated.at,
            own_key=self._acquaintance.used_key,
        )

    # Helpers

    def _go_on(self, attempt: Attempt, now: float) -> list[Output]:
        if attempt.state is None:
            return [self._initiate(attempt, now)]
        if attempt.is_over(now, self._node.timing):
            self._end_attempt()
            if attempt.is_idle:
                return []  # given up already; the next keepalive starts an attempt
            self._is_given_up = True
            return [GiveUp(self.number)]
        attempt.retries += 1
        return [self._initiate(attempt, now), Retrying(self.number, attempt.retries)]

    def _initiate(self, attempt: Attempt, now: float) -> Transmit:
        # Each initiation has its own ephemeral key, timestamp and index; a late answer to an earlier one is refused.
        node, identity = self._node, self._acquaintance.to_call_by(attempt.retries)
        index = node.indices.draw(self.number)
        message, state = noise.create_initiation(
            static=identity.private_key,
            responder_public=self.public_key,
            static_secret=self._acquaintance.secret(identity),
            timestamp=node.clock.stamp(),
            sender_index=index,
            entropy=node.entropy,
        )
        self._free_attempt_index(attempt)
        node.indices.claim(index, self)
        attempt.index, attempt.state, attempt.identity = index, state, identity
        wait = node.timing.rekey_timeout
        if attempt.is_idle:
            wait = self._pause = min(2 * self._pause, node.timing.longest_pause)
        due_at = now + wait + self._jitter()
        attempt.due_at = node.pace.next(due_at) if attempt.is_paced else due_at
        self._initiation_sent_at = now
        datagram = self._cookie_holder().add_macs(message.build(), now)
        return Transmit(self.number, datagram, renew_source=attempt.retries > 0)

    def _install(
        self,
        result: noise.HandshakeResult,
        index: int,
        remote_index: int,
        source: Sockaddr,
        now: float,
        *,
        is_initiator: bool,
    ) -> InstallKeypair:
        # The only place where keys, including exported ones, are derived from a handshake; its chaining key is wiped.
        send_key, receive_key = result.transport_keys()
        unit_keys = []
        for cipher in CIPHERS:
            forth, back = result.export(key_label(cipher))
            unit_keys.append((cipher, forth, back) if is_initiator else (cipher, back, forth))
        result.wipe()
        if len(self._keypair_indices) >= KEYPAIRS:  # the forwarder has not reported any as retired
            self.retire(next(iter(self._keypair_indices)))
        self._keypair_indices[index] = None
        self._wipe_at = now + self._node.timing.wipe_after_time
        return InstallKeypair(
            peer=self.number,
            local_index=index,
            remote_index=remote_index,
            send_key=send_key,
            receive_key=receive_key,
            is_initiator=is_initiator,
            initiated=self._initiation_sent_at if is_initiator else now,
            created=now,
            endpoint=source,
            unit_keys=unit_keys,
        )

    def _complete(self, when: float) -> None:
        """Record that both ends have the keys of a handshake completed at *when*."""
        self._completed_at = when
        self._is_given_up = False
        self._pause = self._node.timing.first_pause
        self._unconfirmed = self._refused = 0

    def _forget_keypairs(self) -> None:
        self._answers.clear()
        for index in self._keypair_indices:
            self._node.indices.free(index)
        self._keypair_indices.clear()
        self._wipe_at = math.inf

    def _end_attempt(self) -> None:
        if self._attempt is not None:
            self._free_attempt_index(self._attempt)
            self._attempt = None

    def _free_attempt_index(self, attempt: Attempt) -> None:
        if attempt.state is not None:
            self._node.indices.free(attempt.index)

    def _cookie_holder(self) -> CookieHolder:
        if self._cookies is None:
            self._cookies = CookieHolder(self.public_key)
        return self._cookies

    def _jitter(self) -> float:
        return int.from_bytes(self._node.entropy(4), "little") / 2**32 * self._node.timing.rekey_jitter
