"""The state of bulk units under one keypair: hellos, keys, size, and reports of what arrived.

Capabilities belong to one keypair.  A hello is sent first when there is a super-packet to carry, at most three times; a
side that hears one may send units from then on, and answers if the other has not heard one yet.  A peer that never says
hello gets only WireGuard's messages, and is asked less and less often (``asking``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from overlay.forwarding import state
from overlay.forwarding.bulk.asking import Asking
from overlay.forwarding.bulk.size import UnitSize
from overlay.forwarding.bulk.units import UnitKey, make_aead, segments_in
from overlay.wire import control
from overlay.wire.bulk import MAXIMUM_FRAGMENTS, MAXIMUM_SEALED
from overlay.wire.control import Hello, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Specification (wire.control): when a hello is sent, in seconds after the first
HELLO_TIMES = (0.0, 1.0, 5.0)

# Ours
REPORT_TIME = 0.04  # seconds in which deliveries are gathered into one report
OVERTAKEN = 4  # units: one that is this far behind is missing
LATE = REPORT_TIME / 2  # seconds: so is one that has not arrived this long after another overtook it


class Ciphers:
    """The keys of one keypair's units, both ways, for each cipher that we use: best first."""

    __slots__ = ("_keys", "_numbers", "_openers", "_receiver_index")

    def __init__(
        self, keys: Sequence[tuple[int, bytes, bytes]], ciphers: Sequence[int], receiver_index: int
    ) -> None:
        self._keys = {cipher: (send, receive) for cipher, send, receive in keys if cipher in ciphers}
        self._openers: dict[int, Callable[..., int]] = {}
        self._receiver_index, self._numbers = receiver_index, tuple(ciphers)

    def receiving(self) -> Iterator[tuple[int, bytes]]:
        """Yield each cipher with the key that opens units under it."""
        return ((cipher, receive) for cipher, (_, receive) in self._keys.items())

    def agree(self, theirs: Sequence[int]) -> UnitKey | None:
        """Return the sealer for a peer that accepts the ciphers *theirs*; None if we share none."""
        for cipher in self._numbers:
            if cipher in theirs and cipher in self._keys:
                return UnitKey(cipher, self._keys[cipher][0], self._receiver_index)
        return None

    def opener(self, cipher: int) -> Callable[..., int] | None:
        """Return the opener of units of *cipher*; None for one that we do not use."""
        opens = self._openers.get(cipher)
        if opens is None and cipher in self._keys:
            opens = self._openers[cipher] = make_aead(cipher, self._keys[cipher][1]).decrypt_into
        return opens


class _Hellos:
    """What this node says of itself under one keypair: when it did, and when it may again."""

    __slots__ = ("_allowed", "_asking", "_ciphers", "_packet", "lanes", "times")

    def __init__(self, ciphers: Sequence[int], packet: int, asking: Asking) -> None:
        self._ciphers, self._packet = tuple(ciphers), packet
        self._asking, self._allowed = asking, 0
        self.lanes = 1  # that this node has
        self.times: list[float] = []

    def next(self, now: float) -> float:
        """Return when the next is due; math.inf if none may follow."""
        said = len(self.times)
        if not said:
            self._allowed = self._asking.begin(now)
        if said >= self._allowed:
            return math.inf
        return self.times[0] + HELLO_TIMES[said] if said else now

    def say(self, now: float, *, is_answer: bool) -> bytes:
        """Return a hello that is sent now."""
        self.times.append(now)
        return control.build(
            Hello(
                self._ciphers,
                MAXIMUM_SEALED,
                MAXIMUM_FRAGMENTS,
                self._packet,
                is_answer=is_answer,
                answers_pings=True,
                answers_probes=True,
                lanes=self.lanes,
            )
        )

    def answered(self) -> None:
        """Note that the peer said hello."""
        self._asking.answered()


class Bulk(state.BulkState):
    """The units of one keypair."""

    __slots__ = ("_hellos", "_reported", "_theirs", "ciphers")

    key: UnitKey | None
    size: UnitSize

    def __init__(
        self,
        keys: Sequence[tuple[int, bytes, bytes]],
        ciphers: Sequence[int],
        receiver_index: int,
        packet: int,
        asking: Asking | None = None,
    ) -> None:
        """*keys* are (cipher, key to send with, key to receive with); *ciphers* what we use, best first.

        *packet* is the largest packet that we accept as a segment.  *asking* is the experience with earlier keypairs of
        the peer.
        """
        self.ciphers = Ciphers(keys, ciphers, receiver_index)
        self._hellos, self.told_packet = _Hellos(ciphers, packet, asking or Asking()), packet
        for cipher, key in self.ciphers.receiving():
            self._opens(cipher, key, self.ciphers.opener(cipher))
        # The next hello is not due before; if it is postponed, as `asking` says
        self.hello_due, self.is_put_off = 0.0, False
        self.has_said_hello = False  # the peer can know that we accept units
        self.has_heard = False  # a hello of the peer
        self._theirs: Hello | None = None  # the hello that was heard
        self.key = None  # None until the peer has said that it accepts units
        # The limits of the peer: bytes of a sealed unit, fragments, bytes of a packet
        self.most = self.fragments = self.packet = 0
        self.size = UnitSize()
        self.window = state.ReplayWindow()
        self._newest_at = 0.0
        self.newest = self.units = self.datagrams = self.missing = self._reported = 0

    @property
    def answers_pings(self) -> bool:
        """Whether the peer does, as it has said."""
        return self._theirs is not None and self._theirs.answers_pings

    @property
    def answers_probes(self) -> bool:
        """Whether the peer does, as it has said."""
        return self._theirs is not None and self._theirs.answers_probes

    def tell_lanes(self, count: int) -> None:
        """Say in hellos that this node has *count* lanes."""
        self._hellos.lanes = count

    def is_for_lane(self) -> None:
        """Belong to a lane other than the first: no hello is sent under its keypair, that of the session counts
        (take_on).
        """
        self.hello_due = math.inf
        self.has_said_hello = True  # that of the session says that there are lanes

    def take_on(self, first: Bulk) -> None:
        """Adopt the peer's capabilities from *first*, the session's; only once, because a key has one counter."""
        if self.has_heard:
            return
        self.has_heard = True
        self._theirs = first._theirs
        self.key = None if first.key is None else self.ciphers.agree((first.key.cipher,))
        self.most, self.fragments, self.packet = first.most, first.fragments, first.packet

    def offer(self, now: float) -> bytes | None:
        """Return the hello that is due before a super-packet is sent; None if none is."""
        due = math.inf if self.has_heard else self._hellos.next(now)
        if due <= now:
            return self._hello(now)
        self.hello_due = due
        if due == math.inf:
            self.is_put_off = not self._hellos.times
        return None

    def take_hello(self, hello: Hello, now: float) -> bytes | None:
        """Adopt the peer's capabilities, and return our hello for it, if it has not received one yet."""
        if not self.has_heard:
            self.has_heard = True
            self._hellos.answered()
            self._theirs = hello
            self.key = self.ciphers.agree(hello.ciphers)
            if self.key is not None:
                self.most, self.fragments, self.packet = hello.unit, hello.fragments, hello.packet
            if hello.is_answer and len(self._hellos.times) == 1:
                self.size.round_trip = now - self._hellos.times[0]
        if hello.is_answer or len(self._hellos.times) >= len(HELLO_TIMES):
            return None
        return self._hello(now)

    def most_segments(self, datagram: int, headers: int, segment: int, link: int, now: float) -> int:
        """Return how many segments a unit in datagrams of *datagram* bytes may have now; 0 if none may be sent.

        They are of *segment* bytes behind *headers* in a packet, and *link* before that in a frame.
        """
        limit = self.size.allowed(now) if self.size.is_plain else self.size.limit
        if self.key is None or not limit or headers + segment > self.packet:
            return 0
        return min(limit, segments_in(self.most, self.fragments, datagram, headers + link, segment))

    def delivered(self, counter: int, fragments: int, now: float) -> None:
        """Note that the unit *counter* arrived complete and was opened."""
        if counter >= self.newest:
            self.newest, self._newest_at = counter + 1, now
        self.units += 1
        self.datagrams += fragments

    def report(self, now: float) -> bytes | None:
        """Return the report on what arrived since the last one; None if nothing did."""
        if self._reported == self.units:
            return None
        self._reported = self.units
        # A unit that was overtaken just now may still arrive: what lies above it is reported next time.
        newest, units = self.newest, self.units
        overtaken = range(max(0, newest - OVERTAKEN), newest) if now < self._newest_at + LATE else ()
        for counter in overtaken:
            if self.window.check(counter):
                units -= sum(not self.window.check(above) for above in range(counter, newest))
                newest = counter
                break
        return control.build(Report(newest, units, self.datagrams, self.missing))

    def _hello(self, now: float) -> bytes:
        self.hello_due, self.is_put_off = 0.0, False
        self.has_said_hello = True
        return self._hellos.say(now, is_answer=self.has_heard)
