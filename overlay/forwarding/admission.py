"""Which handshake messages may cost the agent a computation (whitepaper section 5.3).

A message crosses the link only with the right size and mac1.  While the agent is behind, it must also carry a mac2,
which shows that its sender owns its address, and each address has a bucket of its own.  The first answer to an
initiation of this node is exempt: it does not count as load, and needs no mac2.

While a node's private key is replaced it answers to two public keys, and the mac1 tells which of them a message is for.

Without load, a few initiations for other public keys than this node's cross as well: the agent refuses them, and can
report their senders.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from overlay.crypto.cookies import CookieChecker
from overlay.forwarding.awaited import Awaited
from overlay.forwarding.callers import Callers
from overlay.forwarding.ratelimit import TokenBuckets
from overlay.wire.addresses import pack_host
from overlay.wire.messages import (
    COOKIE_REPLY,
    INITIATION,
    RESPONSE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from overlay.reasons import Drops
    from overlay.wire.addresses import Sockaddr

# As other implementations do
UNDER_LOAD_TIME = 1.0  # seconds for which a node remains under load
HANDSHAKES_PER_SECOND = 20.0  # per address under load
HANDSHAKES_BURST = 5.0

# Ours
UNDER_LOAD_WAITING = 64  # handshakes on the link: some 30 ms of the agent's time
LINK_WAITING = 1024  # handshakes on the link at most; further ones are dropped
COOKIES_WAITING = (
    64  # beyond this many, cookie replies are dropped: anybody can send them, so they must not fill the link
)
MISDIRECTED_PAUSE = 0.5  # seconds between two initiations for other public keys that the agent gets to see

_SIZES = {
    TYPE_INITIATION: (INITIATION.size, "initiation_size"),
    TYPE_RESPONSE: (RESPONSE.size, "response_size"),
    TYPE_COOKIE_REPLY: (COOKIE_REPLY.size, "cookie_size"),
}


class Admission:
    """Passes handshake messages or counts why not; answers with cookies under load."""

    def __init__(self, public_key: bytes, entropy: Callable[[int], bytes]) -> None:
        self.callers = Callers()  # whose messages were let through
        self._entropy = entropy
        self._checkers = {public_key: CookieChecker(public_key, entropy)}
        self._buckets = TokenBuckets(HANDSHAKES_PER_SECOND, HANDSHAKES_BURST)
        self._awaited = Awaited()
        self._misdirected_at = -math.inf  # when the agent may see the next
        self._queue: deque[bool] = deque()  # of each message on the link, whether it is load
        self._waiting = 0  # of those that are
        self._loaded_until = -math.inf

    def identify(self, public_key: bytes) -> None:
        """Pass messages for *public_key*, and no others."""
        self._checkers = {public_key: CookieChecker(public_key, self._entropy)}

    def use_keys(self, public_keys: Sequence[bytes]) -> None:
        """Pass messages for *public_keys* from now on, and no others; cookies of a key that stays remain valid."""
        before = self._checkers
        self._checkers = {key: before.get(key) or CookieChecker(key, self._entropy) for key in public_keys}

    def sent(self, datagram: bytes, now: float) -> None:
        """Note a handshake message that the agent sends: its answer is expected."""
        self._awaited.sent(datagram, now)

    def handled(self, count: int) -> None:
        """Note that the agent has handled the first *count* messages that were passed."""
        for _ in range(min(count, len(self._queue))):
            self._waiting -= self._queue.popleft()

    def not_taken(self) -> None:
        """Note that the last message did not reach the link."""
        self._waiting -= self._queue.pop()

    def is_under_load(self, now: float) -> bool:
        """Return whether a mac2 is required."""
        if self._waiting >= UNDER_LOAD_WAITING:
            self._loaded_until = now + UNDER_LOAD_TIME
        return now < self._loaded_until

    def admit(
        self, kind: int, datagram: bytes, source: Sockaddr, now: float, drops: Drops
    ) -> tuple[bool, bytes | None]:
        """Return whether the message may cross the link, and otherwise what to answer to *source*, if anything."""
        size, reason = _SIZES[kind]
        if len(datagram) != size:
            drops.add(reason, 1, None, datagram)
            return False, None
        if kind != TYPE_COOKIE_REPLY:  # that one is authenticated by what it answers
            checker = next((each for each in self._checkers.values() if each.check_mac1(datagram)), None)
            if checker is None:
                if now >= self._misdirected_at and kind == TYPE_INITIATION and not self.is_under_load(now):
                    self._misdirected_at = now + MISDIRECTED_PAUSE
                    return self._pass(is_load=True)  # the agent counts it
                drops.add("mac1", 1, None, datagram)
                return False, None
            if self._awaited.take(kind, datagram, now):
                return self._pass(is_load=False)
            if self.is_under_load(now):
                address = pack_host(source)
                place = address + source[1].to_bytes(2, "big")
                if not checker.check_mac2(datagram, place, now):
                    drops.add("handshake_under_load", 1, None, datagram)
                    return False, checker.make_reply(datagram, place, now)
                if not self._buckets.allow(address if len(address) == 4 else address[:8], now):
                    drops.add("handshake_rate", 1, None, datagram)
                    return False, None
        elif self._awaited.take(kind, datagram, now):
            return self._pass(is_load=False)
        if self._waiting >= (COOKIES_WAITING if kind == TYPE_COOKIE_REPLY else LINK_WAITING):
            drops.add("handshake_queue", 1, None, datagram)
            return False, None
        return self._pass(is_load=True)

    def _pass(self, *, is_load: bool) -> tuple[bool, None]:
        self._queue.append(is_load)
        self._waiting += is_load
        return True, None
