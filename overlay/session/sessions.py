"""All handshakes of a node.  The forwarder decides which traffic uses which keypair.

The forwarder says when it wants a session (``want``), passes on what it received (``receive``), and reports changes of
a keypair (``confirmed``, ``retired``).  The edge calls ``handle_deadline`` when ``next_deadline`` has come, and carries
out the outputs of each call in order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.crypto import noise
from overlay.errors import PacketError, UnknownInitiatorError
from overlay.session.attempts import Pace
from overlay.session.constants import Timing
from overlay.session.deadlines import Deadlines
from overlay.session.handover import RETRIES, Handovers
from overlay.session.identities import Identities
from overlay.session.indices import Indices
from overlay.session.outputs import Output, Wipe
from overlay.session.peer import HandshakeStatus, LocalNode, PeerHandshakes
from overlay.session.remembered import Remembered
from overlay.session.tai64n import Tai64nClock
from overlay.wire import messages
from overlay.wire.messages import KEY_SIZE, CookieReply, Initiation, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.crypto.keys import PrivateKey
    from overlay.wire.addresses import Sockaddr

_SPECIFIED = Timing()

# Ours
DUE_AT_ONCE = (
    50  # peers in one handle_deadline(): 5 ms of initiations, so that ten thousand do not stall the edge
)


class Sessions:
    """The handshakes of the node that owns *private_key*, with each peer that was added.

    *entropy* returns as many random bytes as it is asked for; *wall_ns* is the wall clock in nanoseconds since 1970,
    for timestamps only; *index_mark* is the *mark* of Indices.  In each method, ``now`` is in seconds of
    CLOCK_BOOTTIME.  Peers are identified by numbers that the caller chooses.
    """

    def __init__(
        self,
        private_key: PrivateKey,
        *,
        entropy: Callable[[int], bytes],
        wall_ns: Callable[[], int],
        constants: Timing = _SPECIFIED,
        index_mark: int | None = None,
    ) -> None:
        self._clock = Tai64nClock(wall_ns)
        self._indices: Indices[PeerHandshakes] = Indices(entropy, index_mark)
        self._identities = Identities(private_key)
        self._node = LocalNode(self._identities, entropy, self._clock, constants, self._indices, Pace())
        self._by_number: dict[int, PeerHandshakes] = {}
        self._by_public_key: dict[bytes, PeerHandshakes] = {}
        self._deadlines = Deadlines()
        self._timestamps = Remembered()  # of peers that were removed
        self._handovers = Handovers(RETRIES * constants.rekey_timeout)

    # Keys of the node

    @property
    def private_key(self) -> PrivateKey:
        """Return the key of the node; while it is being replaced, the one used to call peers that have not been heard
        from yet.
        """
        return self._identities.known[0].private_key

    @property
    def private_keys(self) -> tuple[PrivateKey, ...]:
        """Return all keys that the node answers to."""
        return tuple(each.private_key for each in self._identities.known)

    def use_keys(self, *private_keys: PrivateKey) -> None:
        """Answer to *private_keys* from now on: the one in use and, while it is being replaced, the next.

        The first is used to call peers that have not been heard from yet.  Keypairs in use stay; an attempt that was
        made with another key continues with one of these.
        """
        self._identities.use(*private_keys)

    def change_key(self, *private_keys: PrivateKey) -> None:
        """Become the node with *private_keys*: attempts and keypairs made with the previous ones are dropped, as the
        forwarder drops them.

        Peers stay, and so does their protection against replay.
        """
        self._identities.use(*private_keys)
        self._handovers.forget()
        for handshakes in self._by_number.values():
            handshakes.begin_anew()
            self._schedule(handshakes)

    # Peers

    def add_peer(self, peer: int, public_key: bytes, preshared_key: bytes | None = None) -> None:
        """Add *peer*; nothing is sent yet.

        Raises ValueError for a number or a public key that is taken, for our own public key, and for keys that do not
        have 32 bytes.  A public key of low order is accepted, but nothing is ever sent to its peer.
        """
        if len(public_key) != KEY_SIZE:
            raise ValueError(f"a public key has {KEY_SIZE} bytes, not {len(public_key)}")
        if self._identities.includes(public_key):
            raise ValueError("a node cannot be its own peer")
        if peer in self._by_number or public_key in self._by_public_key:
            raise ValueError("the peer's number or public key is taken")
        after = self._timestamps.take(public_key)
        handshakes = PeerHandshakes(self._node, peer, public_key, preshared_key, after)
        self._by_number[peer] = handshakes
        self._by_public_key[public_key] = handshakes

    def change_public_keys(self, changed: Mapping[int, tuple[bytes, bytes | None]]) -> None:
        """Change the public keys of these peers, each with a preshared key or None, as if they had just been added.

        Their keypairs stay for some seconds, so that nothing is lost until there are new ones: see Handovers.
        """
        for peer in changed:
            former = self._by_number.pop(peer)
            del self._by_public_key[former.public_key]
            self._timestamps.keep(former.public_key, former.greatest_timestamp)
            self._deadlines.set(peer, math.inf)
            self._handovers.begin(former)
        for peer, (public_key, preshared_key) in changed.items():
            self.add_peer(peer, public_key, preshared_key)

    def set_preshared_key(self, peer: int, preshared_key: bytes | None) -> None:
        """Use *preshared_key*, None for none, in handshakes with *peer* from now on; keypairs in use stay."""
        self._by_number[peer].set_preshared_key(preshared_key)

    def remove_peer(self, peer: int) -> list[Output]:
        """Forget *peer* and its keys.  An unknown peer is ignored."""
        handshakes = self._by_number.pop(peer, None)
        if handshakes is None:
            return []
        del self._by_public_key[handshakes.public_key]
        self._timestamps.keep(handshakes.public_key, handshakes.greatest_timestamp)
        self._deadlines.set(peer, math.inf)
        self._handovers.forget(peer)
        handshakes.wipe()
        return [Wipe(peer)]

    # From the forwarder

    def want(
        self, peer: int, now: float, *, is_idle: bool = False, is_greeting: bool = False
    ) -> list[Output]:
        """Start a handshake with *peer* unless one is running, REKEY_TIMEOUT after the last initiation or at once.

        If it *is_idle*, with only keepalives to send, and was given up, it is called with growing pauses.  If it
        *is_greeting*, for which no packet waits either, it is called again at the pace of all such peers.

        The forwarder may ask for a peer that has just been removed: nothing happens.
        """
        handshakes = self._by_number.get(peer)
        if handshakes is None:
            return []
        outputs = handshakes.want(now, is_idle=is_idle, is_greeting=is_greeting)
        self._schedule(handshakes)
        return outputs

    def receive(self, datagram: bytes, source: Sockaddr, now: float) -> list[Output]:
        """Take one handshake message.  Raises PacketError, with nothing changed, if it is refused.

        Two things change even then: counters, and an authentic initiation older than an accepted one makes this node
        call its sender.

        The forwarder has checked mac1, and mac2 under load; mac1 is checked again, because the link is trusted no more
        than the network.
        """
        match messages.message_type(datagram):
            case messages.TYPE_INITIATION:
                return self._receive_initiation(datagram, source, now)
            case messages.TYPE_RESPONSE:
                return self._receive_response(datagram, source, now)
            case messages.TYPE_COOKIE_REPLY:
                return self._receive_cookie_reply(datagram, now)
            case _:
                raise PacketError("handshake_type")

    def confirmed(self, local_index: int, now: float) -> list[Output]:
        """Record that a message arrived under the keypair *local_index*, which we made as responder.

        This completes the handshake. Our own attempt, if one is running, ends: the peer is reached.
        """
        handshakes = self._indices.owner(local_index)
        if handshakes is None or self._by_number.get(handshakes.number) is not handshakes:
            return []  # a keypair of a peer's former key: it confirms nothing about the present one
        outputs = handshakes.confirm(local_index, now)
        self._schedule(handshakes)
        return outputs

    def heard(self, peer: int) -> None:
        """Record that *peer*, which was silent, was heard from again: it is no longer given up."""
        handshakes = self._by_number.get(peer)
        if handshakes is not None:
            handshakes.hear()

    def retired(self, local_index: int) -> None:
        """Free the index of a keypair that the forwarder has forgotten.  An unused index is ignored."""
        handshakes = self._indices.owner(local_index)
        if handshakes is not None:
            handshakes.retire(local_index)

    def start_over(self) -> None:
        """Record that the forwarder is gone, with everything it had: keypairs, staged packets, messages on their way.

        Attempts end, and the next want() for a peer starts at once.  Protection against replay stays.
        """
        self._handovers.forget()
        for handshakes in self._by_number.values():
            handshakes.start_over()
            self._schedule(handshakes)

    # Time

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        return min(self._deadlines.next(), self._handovers.next_deadline())

    def handle_deadline(self, now: float) -> list[Output]:
        """Do what is due: repeat initiations, give peers up, wipe keys.

        At most DUE_AT_ONCE peers have their turn; if there are more, next_deadline() is still due after the call.
        """
        outputs = self._handovers.handle_deadline(now)
        for peer in self._deadlines.take_due(now, DUE_AT_ONCE):
            handshakes = self._by_number[peer]
            outputs += handshakes.handle_deadline(now)
            self._schedule(handshakes)
        return outputs

    # Questions

    def status(self, peer: int) -> HandshakeStatus:
        """Return the state of the handshakes with *peer*.  Raises KeyError for an unknown peer."""
        return self._by_number[peer].status

    def ahead(self, peer: int, now: float) -> float | None:
        """Return how many seconds the clock of *peer* is ahead of this node's, by its last accepted initiation.

        None if there was none.  A peer need not use the time of day for its stamps, so a negative number proves
        nothing.
        """
        return self._by_number[peer].ahead(now)

    def is_clock_plausible(self) -> bool:
        """Return whether the wall clock shows 2020 or later; if not, peers may refuse our initiations."""
        return self._clock.is_plausible()

    def has_index(self, index: int) -> bool:
        """Return whether a handshake or keypair of this node has *index*."""
        return self._indices.owner(index) is not None

    # Helpers

    def _receive_initiation(self, datagram: bytes, source: Sockaddr, now: float) -> list[Output]:
        message = Initiation.parse(datagram)
        identity = self._identities.addressed_by(datagram)
        opened = noise.open_static(identity.private_key, message)
        handshakes = self._by_public_key.get(opened.initiator_public)
        if handshakes is None:
            raise UnknownInitiatorError(opened.initiator_public)
        try:
            return handshakes.consume_initiation(opened, identity, source, now)
        finally:
            self._schedule(handshakes)  # a refused message may be a reason to call the peer

    def _receive_response(self, datagram: bytes, source: Sockaddr, now: float) -> list[Output]:
        message = Response.parse(datagram)
        self._identities.addressed_by(datagram)
        handshakes = self._indices.owner(message.receiver_index)
        if handshakes is None:
            raise PacketError("response_index")
        outputs = handshakes.consume_response(message, source, now)
        self._schedule(handshakes)
        return outputs

    def _receive_cookie_reply(self, datagram: bytes, now: float) -> list[Output]:
        reply = CookieReply.parse(datagram)
        handshakes = self._indices.owner(reply.receiver_index)
        if handshakes is None:
            raise PacketError("cookie_index")
        handshakes.consume_cookie_reply(reply, now)
        return []

    def _schedule(self, handshakes: PeerHandshakes) -> None:
        self._deadlines.set(handshakes.number, handshakes.deadline)
