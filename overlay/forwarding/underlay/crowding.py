"""Whose datagrams are dropped early while more arrive than this node can take.

All peers of a socket wait in one receive buffer, which holds seconds of work if it is full of small datagrams.  So once
many have waited for a while, those of peers that sent more than the average are dropped as soon as it is known whose
they are, which takes a fraction of the time that opening and delivering them would: the others wait less.  A burst
that is over within PATIENCE is taken whole.

Work is counted in *pieces*: one for each datagram, or for all that the kernel merged if they are large.  So sixty-four
kilobytes of a TCP stream count as one, and such streams alone never crowd a socket.  Of raw sockets, for which the
kernel merges nothing, large packets of one sender that come behind each other count as if they had been merged.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

# Specification (Linux): what the kernel counts for a datagram that waits, in addition to its bytes
DATAGRAM_COST = 768

# Ours
AT_ONCE = 128  # pieces in one go, before the other direction and other sockets have their turn
SMALL = 1024  # bytes; merged datagrams of less are a piece each
MOST_WAITING = 256  # pieces: a millisecond of work, or ten without the compiled twin
PATIENCE = 0.05  # seconds for which more may wait: a burst, or what came while this process had to wait
MEMORY = 1.0  # seconds after that for which there is no patience


class ReceiveQueue(Protocol):
    """What is asked of the kernel; SocketQueues has it."""

    def arrived(self) -> int: ...


def pieces_of(size: int, merged: int) -> int:
    """Return how much work one receive of *size* bytes is, merged from datagrams of *merged* bytes; 0 is from one."""
    return -(-size // merged) if 0 < merged < SMALL else int(size > 0)


def pieces_of_rows(sizes: Sequence[int]) -> int:
    """Return how much work packets of *sizes* bytes are, which a raw socket received from one sender in one call."""
    small = sum(size < SMALL for size in sizes)
    return small + (small < len(sizes))


class Crowding:
    """What waits at one socket.  Times are seconds of CLOCK_BOOTTIME."""

    __slots__ = ("_bytes", "_pieces", "_since", "_until", "is_behind", "is_pressed")

    def __init__(self) -> None:
        self.is_behind = False  # the last go left something
        self.is_pressed = False  # peers that send more than the average are dropped in this go
        self._since, self._until = math.inf, -math.inf
        self._pieces = self._bytes = 0  # that the last go took, as the kernel counts them

    def begin(self, queue: ReceiveQueue | None, now: float) -> None:
        """Begin a go: look at *queue* if the last go did not empty it."""
        self.is_pressed = False
        if (
            not self.is_behind
            or queue is None
            or queue.arrived() * self._pieces <= MOST_WAITING * self._bytes
        ):
            self._since = math.inf
            return
        self._since = min(self._since, now)
        self.is_pressed = now - self._since >= PATIENCE or now < self._until
        if self.is_pressed:
            self._until = now + MEMORY

    def end(self, pieces: int, receives: int, size: int, *, is_behind: bool) -> bool:
        """Note what a go has taken, and whether it may have left something, which is returned."""
        self._pieces, self._bytes, self.is_behind = pieces, receives * DATAGRAM_COST + size, is_behind
        return is_behind
