"""One end of any number of WireGuard tunnels, without input or output."""

from __future__ import annotations

import itertools
import math
import os
import time
from typing import TYPE_CHECKING

from overlay.errors import PacketError, UnknownInitiatorError
from overlay.session.constants import Timing
from overlay.session.outputs import (
    Answered,
    Completed,
    Forget,
    GiveUp,
    InstallKeypair,
    Retrying,
    Transmit,
    Wipe,
)
from overlay.session.sessions import Sessions
from overlay.wire import messages
from overlay.wire.ip import packet_length
from overlay.wireguard.events import Datagram, Lost, Packet, Refused, Up
from overlay.wireguard.peer import DevicePeer, Keypair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.crypto.keys import PresharedKey, PrivateKey
    from overlay.session.outputs import Output
    from overlay.wire.addresses import Sockaddr
    from overlay.wireguard.events import Event

_SPECIFIED = Timing()
_KEEPALIVE = b""


class Device:
    """A node of WireGuard that owns *private_key*.

    ``now`` is, in each method, the time in seconds of one clock that never goes back, such as time.monotonic() or that
    of an event loop.  *entropy* gives that many random bytes; *wall_ns* is the wall clock in nanoseconds since 1970,
    which goes into the timestamps of initiations.  A test may pass its own, and *timing* with shorter times.

    The owner sends the Datagram events, passes datagrams that arrive to receive(), and calls handle_deadline() when
    next_deadline() has come.  Only one thread may use a device.
    """

    def __init__(
        self,
        private_key: PrivateKey,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
        wall_ns: Callable[[], int] = time.time_ns,
        timing: Timing = _SPECIFIED,
    ) -> None:
        self.public_key = private_key.public
        """Its own public key, 32 bytes."""
        self._timing = timing
        self._sessions = Sessions(private_key, entropy=entropy, wall_ns=wall_ns, constants=timing)
        self._numbers = itertools.count()
        self._peers: dict[bytes, DevicePeer] = {}
        self._by_number: dict[int, DevicePeer] = {}
        self._by_index: dict[int, DevicePeer] = {}

    # Peers

    def add_peer(
        self,
        public_key: bytes,
        *,
        preshared_key: PresharedKey | None = None,
        endpoint: Sockaddr | None = None,
        keepalive: float = 0,
    ) -> None:
        """Add the peer that owns *public_key* (32 bytes, see decode_key).  Nothing is sent yet.

        *endpoint* is (address, port) as in sockets; without one, the peer must call first.  *keepalive* is in
        seconds: from the first message on, the peer receives something at least that often.  Raises ValueError for a
        known peer, for our own key, for a key of zeros, and for a *keepalive* that is negative, infinite or NaN.
        """
        if not any(public_key):
            raise ValueError("a public key of zeros is not a key")
        if not 0 <= keepalive < math.inf:
            raise ValueError(f"keepalive is {keepalive}, which is not a number of seconds from 0 on")
        number = next(self._numbers)
        secret = None if preshared_key is None else preshared_key.secret
        self._sessions.add_peer(number, public_key, secret)
        self._peers[public_key] = self._by_number[number] = DevicePeer(
            number, public_key, endpoint, keepalive
        )

    def remove_peer(self, public_key: bytes) -> None:
        """Forget the peer and its keys.  Raises KeyError for an unknown one."""
        peer = self._peers.pop(public_key)
        del self._by_number[peer.number]
        self._retire(peer.clear())
        self._sessions.remove_peer(peer.number)

    @property
    def peers(self) -> tuple[bytes, ...]:
        """The public keys of all peers, in the order in which they were added."""
        return tuple(self._peers)

    def endpoint_of(self, public_key: bytes) -> Sockaddr | None:
        """Return the address from which the peer was last heard, or otherwise the one given.  Raises KeyError for an
        unknown peer.
        """
        return self._peers[public_key].endpoint

    def is_up(self, public_key: bytes, now: float) -> bool:
        """Return whether send() would work without a handshake.  Raises KeyError for an unknown peer."""
        return self._peers[public_key].usable(now) is not None

    # Use

    def connect(self, public_key: bytes, now: float) -> list[Event]:
        """Start a handshake with a peer, unless one is running.

        Raises KeyError for an unknown peer, and ValueError for one without a known endpoint.
        """
        peer = self._peers[public_key]
        if peer.endpoint is None:
            raise ValueError("the endpoint of this peer is not known: give one, or wait until it calls")
        return self._want(peer, now)

    def send(self, public_key: bytes, payload: bytes, now: float) -> list[Event]:
        """Send *payload*, for other implementations an IP packet, through the tunnel.

        Without a session it waits for one, and a handshake starts; of more than 128 payloads the oldest is dropped.  An
        empty payload is a keepalive.  Raises KeyError for an unknown peer.
        """
        peer = self._peers[public_key]
        keypair = peer.usable(now)
        if keypair is None or peer.endpoint is None:
            if payload:
                peer.staged.append(payload)
            return [] if peer.endpoint is None else self._want(peer, now)
        events: list[Event] = [self._seal(peer, keypair, payload, now)]
        if now >= keypair.rekey_at:
            events += self._want(peer, now)
        return events

    def receive(self, datagram: bytes, source: Sockaddr, now: float) -> list[Event]:
        """Handle a datagram that came from *source*.  Raises nothing, whatever it contains: see Refused."""
        try:
            if messages.message_type(datagram) == messages.TYPE_TRANSPORT:
                return self._receive_transport(datagram, source, now)
            return self._carry_out(self._sessions.receive(datagram, source, now), now)
        except UnknownInitiatorError as error:
            return [Refused(source, error.reason, error.public_key)]
        except PacketError as error:
            return [Refused(source, error.reason)]

    def next_deadline(self) -> float:
        """Return when handle_deadline() is due; math.inf if never."""
        timers = (peer.deadline for peer in self._peers.values())
        return min(self._sessions.next_deadline(), min(timers, default=math.inf))

    def handle_deadline(self, now: float) -> list[Event]:
        """Do what is due: repeat initiations, send keepalives, renew sessions, forget keys."""
        events = self._carry_out(self._sessions.handle_deadline(now), now)
        for peer in self._peers.values():
            if now >= peer.doubt_at:
                peer.doubt_at = math.inf
                events += self._want(peer, now)
            is_answer_due, is_due = now >= peer.answer_at, now >= peer.persist_at
            if is_answer_due or is_due:
                peer.answer_at = peer.persist_at = math.inf
            if is_due or (is_answer_due and self.is_up(peer.public_key, now)):
                events += self.send(peer.public_key, _KEEPALIVE, now)
        return events

    # Helpers

    def _want(self, peer: DevicePeer, now: float) -> list[Event]:
        return self._carry_out(self._sessions.want(peer.number, now), now)

    def _seal(self, peer: DevicePeer, keypair: Keypair, payload: bytes, now: float) -> Datagram:
        assert peer.endpoint is not None
        peer.sent(now, self._timing, is_data=bool(payload))
        return Datagram(keypair.keys.seal(payload), peer.endpoint)

    def _receive_transport(self, datagram: bytes, source: Sockaddr, now: float) -> list[Event]:
        index = int.from_bytes(datagram[4:8], "little")
        peer = self._by_index.get(index)
        if peer is None:
            raise PacketError("unknown_index")
        keypair = next(
            each
            for each in (peer.current, peer.waiting, peer.previous)
            if each is not None and each.index == index
        )
        if now >= keypair.reject_at:
            raise PacketError("keypair_expired")
        payload = keypair.keys.open(datagram)
        peer.endpoint = source
        events: list[Event] = []
        if keypair is peer.waiting:
            self._retire(peer.promote())
            events += self._carry_out(self._sessions.confirmed(index, now), now)
            events += self._flush(peer, now)
        self._sessions.heard(peer.number)
        peer.received(now, self._timing, is_data=bool(payload))
        if payload:
            events.append(Packet(peer.public_key, _without_padding(payload)))
        if now >= keypair.rekey_receive_at:
            keypair.rekey_receive_at = math.inf
            events += self._want(peer, now)
        return events

    def _flush(self, peer: DevicePeer, now: float) -> list[Event]:
        """Send the waiting payloads; if there are none, an initiator sends a keepalive to show that it has the keys."""
        keypair = peer.usable(now)
        assert keypair is not None
        if not peer.staged and keypair.is_initiator:
            peer.staged.append(_KEEPALIVE)
        events: list[Event] = [self._seal(peer, keypair, payload, now) for payload in peer.staged]
        peer.staged.clear()
        return events

    def _carry_out(self, outputs: Iterable[Output], now: float) -> list[Event]:
        """Return the events that follow from *outputs* of the sessions, in order."""
        events: list[Event] = []
        for output in outputs:
            if isinstance(output, Retrying):
                continue
            peer = self._by_number[output.peer]
            match output:
                case Transmit():
                    endpoint = output.endpoint or peer.endpoint
                    if endpoint is not None:
                        events.append(Datagram(output.datagram, endpoint))
                case InstallKeypair():
                    peer.endpoint = output.endpoint
                    keypair = Keypair(output, self._timing)
                    self._by_index[keypair.index] = peer
                    self._retire(peer.install(keypair))
                    peer.received(now, self._timing, is_data=False)
                    if keypair.is_initiator:
                        events += self._flush(peer, now)
                case Completed():
                    events.append(Up(peer.public_key, output.endpoint))
                case GiveUp():
                    peer.staged.clear()
                    events.append(Lost(peer.public_key))
                case Wipe():
                    self._retire(peer.clear())
                case Answered() | Forget():  # the peers of a device keep their keys
                    pass
        return events

    def _retire(self, keypairs: Iterable[Keypair]) -> None:
        for keypair in keypairs:
            del self._by_index[keypair.index]
            self._sessions.retired(keypair.index)


def _without_padding(payload: bytes) -> bytes:
    try:
        return payload[: packet_length(payload)]
    except PacketError:
        return payload
