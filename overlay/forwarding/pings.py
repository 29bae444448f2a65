"""In-band pings: those of this node that wait for a pong, and how many of the peers' are answered.

The round trip is measured here, so that neither the agent's turn nor the kernel of the far host is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overlay.errors import PacketError
from overlay.forwarding.ratelimit import TokenBuckets
from overlay.link.messages import PINGS_WAITING, Ponged
from overlay.wire import control
from overlay.wire.control import IDENTIFIER_SIZE, Ping, Pong

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer
    from overlay.link.messages import PingPeer

# Ours
PONGS_PER_SECOND = 1000.0  # to one peer: as many as `overlay ping` can ask for at its shortest interval
PONGS_AT_ONCE = 50


class Sent(NamedTuple):
    """A ping that waits for its pong."""

    request: int  # the agent's number for it
    local_index: int  # our index of the keypair; not the keypair itself, which would keep its keys
    at: float


class Pings:
    """The pings of all peers, in bounded memory."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._sent: dict[int, Sent] = {}  # by identifier; in the order of sending
        self._permits = TokenBuckets(PONGS_PER_SECOND, PONGS_AT_ONCE)

    def ping(self, command: PingPeer, keypair: Keypair[LivePeer] | None, now: float) -> bytes | None:
        """Return the ping to send; None unless the peer has said under *keypair* that it answers pings.

        A ping beyond the limit replaces the oldest that waits.
        """
        if keypair is None or keypair.bulk is None or not keypair.bulk.answers_pings:
            return None
        if len(self._sent) >= PINGS_WAITING:
            del self._sent[next(iter(self._sent))]
        identifier = int.from_bytes(self._entropy(IDENTIFIER_SIZE), "little")
        self._sent[identifier] = Sent(command.identifier, keypair.local_index, now)
        return control.build(Ping(identifier))

    def pong(self, ping: Ping, keypair: Keypair[LivePeer], now: float) -> bytes:
        """Return the answer to a ping that came by *keypair*.  Raises PacketError where its peer asks too often."""
        if not self._permits.allow(keypair.peer.number.to_bytes(8, "little"), now):
            raise PacketError("ping_rate")
        return control.build(Pong(ping.identifier))

    def take(self, pong: Pong, keypair: Keypair[LivePeer], now: float) -> Ponged:
        """Return what to report about a pong that came under *keypair*.  Raises PacketError if none is
        awaited there.
        """
        sent = self._sent.get(pong.identifier)
        if sent is None or sent.local_index != keypair.local_index:
            raise PacketError("pong_unexpected")
        del self._sent[pong.identifier]
        return Ponged(keypair.peer.number, sent.request, now - sent.at)
