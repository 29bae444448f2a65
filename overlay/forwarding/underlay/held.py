"""Sends that the kernel could not accept, by peer: bounded for each and for all, and sent in turns once there is room.

The bounds count datagrams and their bytes, not sends: what is held does not depend on how many left in one call, in
which the two packet paths differ.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from overlay.forwarding.underlay.datagrams import count_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

P = TypeVar("P")  # whom a send is for: a peer

# Ours
HELD_BYTES = 512 * 1024  # per peer: eight super-packets
HELD_BYTES_TOTAL = 32 * 1024 * 1024
HELD_DATAGRAMS = 1024  # per peer, that of small packets few bytes cost much memory
HELD_MESSAGES = 256  # per peer, of our own making: a timer makes another


@dataclass(frozen=True, slots=True)
class Send:
    """One send as the sender accepts it; its buffers are a copy, because the packets' own are reused."""

    buffers: Sequence[memoryview]
    size: int
    marks: int
    flow: int
    is_message: bool = False

    @property
    def total(self) -> int:
        """Bytes of all its datagrams."""
        return sum(map(len, self.buffers))


class _Waiting:
    """What waits for one peer."""

    __slots__ = ("datagrams", "messages", "sends", "total")

    def __init__(self) -> None:
        self.sends: deque[Send] = deque()
        self.datagrams = self.messages = self.total = 0


class Held(Generic[P]):
    """The sends that wait."""

    def __init__(self) -> None:
        self._waiting: dict[P, _Waiting] = {}  # who is first has the next turn
        self._total = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, peer: P) -> bool:
        return peer in self._waiting

    def add(
        self,
        peer: P,
        buffers: Sequence[memoryview],
        size: int,
        marks: int,
        flow: int,
        *,
        is_unit: bool = False,
    ) -> int:
        """Hold those datagrams of a send that there is room for, behind what waits for *peer*; return how many there
        is no room for.

        The fragments of a unit are of no use without each other: of a send that *is_unit* all are held, or none.
        """
        waiting = self._waiting.get(peer) or _Waiting()
        count, total = count_all(buffers, size), sum(map(len, buffers))
        if not self._has_room(waiting, count, total):
            if is_unit or count == 1:
                return count
            buffers = self._fitting(waiting, buffers, size)
            if not buffers:
                return count
        self._hold(peer, waiting, Send(_copies(buffers), size, marks, flow))
        return count - count_all(buffers, size)

    def add_message(self, peer: P, datagram: bytes, marks: int) -> bool:
        """Hold a message of this node behind whatever waits for *peer*; return False if there are too many messages."""
        waiting = self._waiting.get(peer) or _Waiting()
        if waiting.messages >= HELD_MESSAGES:
            return False
        self._hold(peer, waiting, Send([memoryview(datagram)], len(datagram), marks, 0, is_message=True))
        return True

    def resume(self, attempt: Callable[[P, Send], Sequence[memoryview]]) -> None:
        """Let *attempt* have one send of each peer in turns, until nothing more leaves.

        It returns what is left of a send; then that peer waits for the next time.
        """
        peers = list(self._waiting)
        while peers:
            going = []
            for peer in peers:
                waiting = self._waiting.get(peer)
                if waiting is None:
                    continue
                send = waiting.sends[0]
                rest = attempt(peer, send)
                left = dataclasses.replace(send, buffers=rest)
                self._count(waiting, send, -1)
                if rest:
                    waiting.sends[0] = left
                    self._count(waiting, left, 1)
                    continue
                waiting.sends.popleft()
                if waiting.sends:
                    going.append(peer)
                else:
                    del self._waiting[peer]
            peers = going
        self._rotate()

    def forget(self, peer: P) -> None:
        """Drop what is held for *peer*."""
        waiting = self._waiting.pop(peer, None)
        if waiting is not None:
            self._total -= waiting.total

    def __iter__(self) -> Iterator[P]:
        return iter(self._waiting)

    def _has_room(self, waiting: _Waiting, count: int, total: int) -> bool:
        """Return whether *count* datagrams of *total* bytes together may wait with what does."""
        return (
            waiting.datagrams + count <= HELD_DATAGRAMS
            and waiting.total + total <= HELD_BYTES
            and self._total + total <= HELD_BYTES_TOTAL
        )

    def _fitting(self, waiting: _Waiting, buffers: Sequence[memoryview], size: int) -> list[memoryview]:
        """Return those datagrams of a send that there is room for, one by one: the first, and perhaps a short last."""
        kept: list[memoryview] = []
        total = 0
        for view in buffers:
            for at in range(0, len(view), size):
                datagram = view[at : at + size]
                if self._has_room(waiting, len(kept) + 1, total + len(datagram)):
                    kept.append(datagram)
                    total += len(datagram)
        return kept

    def _hold(self, peer: P, waiting: _Waiting, send: Send) -> None:
        waiting.sends.append(send)
        self._waiting[peer] = waiting
        self._count(waiting, send, 1)

    def _count(self, waiting: _Waiting, send: Send, times: int) -> None:
        """Count *send* among what waits; with *times* -1 no more."""
        total = send.total
        waiting.datagrams += times * count_all(send.buffers, send.size)
        waiting.messages += times * send.is_message
        waiting.total += times * total
        self._total += times * total

    def _rotate(self) -> None:
        """Let the peer that was first be last next time, so that room for one send goes to each in its turn."""
        if len(self._waiting) > 1:
            first = next(iter(self._waiting))
            self._waiting[first] = self._waiting.pop(first)


def _copies(buffers: Sequence[memoryview]) -> list[memoryview]:
    return [memoryview(bytearray(view)) for view in buffers]
