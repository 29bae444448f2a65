"""What the kernel could not take, by peer: bounded for each and for all, and sent in turns once there is room."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

P = TypeVar("P")  # whom a send is for: a peer

# Ours
HELD_BYTES = 512 * 1024  # per peer: eight super-packets
HELD_BYTES_TOTAL = 32 * 1024 * 1024
HELD_SENDS = 1024  # per peer, that of small packets few bytes cost much memory
HELD_MESSAGES = 256  # sends held, from which on a message of our own making is dropped: a timer makes another


@dataclass(frozen=True, slots=True)
class Send:
    """One send as the sender takes it; its buffers are a copy, for the packets' own are used again."""

    buffers: Sequence[memoryview]
    size: int
    marks: int
    flow: int

    @property
    def total(self) -> int:
        """Bytes of all its datagrams."""
        return sum(map(len, self.buffers))


class Held(Generic[P]):
    """The sends that wait."""

    def __init__(self) -> None:
        self._queues: dict[P, deque[Send]] = {}  # who is first has the next turn
        self._bytes: dict[P, int] = {}
        self._total = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __contains__(self, peer: P) -> bool:
        return peer in self._queues

    def count(self, peer: P) -> int:
        """Return how many sends wait for *peer*."""
        queue = self._queues.get(peer)
        return len(queue) if queue is not None else 0

    def add(
        self, peer: P, buffers: Sequence[memoryview], size: int, marks: int, flow: int, *, bounded: bool
    ) -> bool:
        """Hold a send behind what waits for *peer*; return False if there is no room, which needs *bounded*."""
        total = sum(map(len, buffers))
        has = self._bytes.get(peer, 0)
        if bounded and (
            has + total > HELD_BYTES
            or self._total + total > HELD_BYTES_TOTAL
            or self.count(peer) >= HELD_SENDS
        ):
            return False
        copies = [memoryview(bytearray(view)) for view in buffers]
        self._queues.setdefault(peer, deque()).append(Send(copies, size, marks, flow))
        self._bytes[peer] = has + total
        self._total += total
        return True

    def resume(self, attempt: Callable[[P, Send], Sequence[memoryview]]) -> None:
        """Let *attempt* have one send of each peer in turns, until nothing more leaves.

        It returns what is left of a send; then that peer waits for the next time.
        """
        waiting = list(self._queues)
        while waiting:
            going = []
            for peer in waiting:
                queue = self._queues.get(peer)
                if queue is None:
                    continue
                send = queue[0]
                rest = attempt(peer, send)
                self._shrink(peer, send.total - sum(map(len, rest)))
                if rest:
                    queue[0] = Send(rest, send.size, send.marks, send.flow)
                    continue
                queue.popleft()
                if queue:
                    going.append(peer)
                else:
                    del self._queues[peer], self._bytes[peer]
            waiting = going
        self._rotate()

    def forget(self, peer: P) -> None:
        """Drop what is held for *peer*."""
        if self._queues.pop(peer, None) is not None:
            self._total -= self._bytes.pop(peer)

    def __iter__(self) -> Iterator[P]:
        return iter(self._queues)

    def _shrink(self, peer: P, size: int) -> None:
        self._bytes[peer] -= size
        self._total -= size

    def _rotate(self) -> None:
        """Let the peer that was first be last next time, so that room for one send goes to each in its turn."""
        if len(self._queues) > 1:
            first = next(iter(self._queues))
            self._queues[first] = self._queues.pop(first)
