"""Bulk units that arrive: which fragments are there, bounded in number, memory
and time (``wire.bulk`` has the format).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from overlay.errors import PacketError
from overlay.forwarding.bulk.units import LEAD
from overlay.wire.bulk import FRAGMENT_HEADER_SIZE, MAXIMUM_SEALED

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.offload.flow import Bytes2D, Words
    from overlay.wire.addresses import Sockaddr

K = TypeVar("K")  # under which a unit was sealed: a keypair

# Ours
UNITS_PER_SESSION = 16  # incomplete ones from the peer's endpoint; reordering in networks causes far fewer
UNITS_FROM_ELSEWHERE = 2  # incomplete ones of all other addresses and sessions together
UNITS_TOTAL = 64  # incomplete ones of all sessions: 4 MB of buffers
REASSEMBLY_TIME = 1.0  # seconds after which an incomplete unit is lost
HEADER_BITS = 8 * FRAGMENT_HEADER_SIZE
FIRST_HEADER = (1 << HEADER_BITS) - 1
# How the header words of a fragment differ from those of the one before it: its number is the second byte
_STEP = np.array([1 << 8, 0, 0, 0], dtype=np.uint32)


class Partial(Generic[K]):
    """A unit of which some fragments are there."""

    __slots__ = (
        "began", "buffer", "cipher", "count", "have", "is_at_endpoint", "is_marked", "keypair", "missing", "piece",
        "tail",
    )  # fmt: skip

    def __init__(
        self,
        keypair: K,
        buffer: bytearray,
        count: int,
        cipher: int,
        now: float,
        *,
        is_at_endpoint: bool,
    ) -> None:
        self.keypair, self.buffer, self.count, self.cipher = keypair, buffer, count, cipher
        self.began, self.is_at_endpoint = now, is_at_endpoint
        self.missing, self.have = count, 0
        self.piece = 0  # bytes of every fragment but the last; 0 until one was seen
        self.tail = b""  # the last fragment
        self.is_marked = False  # one of its datagrams carried a congestion mark


Place = tuple[int, int, "Sockaddr"]
"""Where fragments are kept: receiver index, counter, source address."""


class Reassembly(Generic[K]):
    """All incomplete units of a forwarder, bounded in number, memory and time."""

    def __init__(self, lost: Callable[[Partial[K]], None]) -> None:
        """*lost* is called for each unit that is given up."""
        self._lost = lost
        self._partials: OrderedDict[Place, Partial[K]] = OrderedDict()  # oldest first
        self._at_endpoint: dict[int, int] = {}  # incomplete units by receiver index
        self._elsewhere = 0
        self._pool: list[bytearray] = []

    def __len__(self) -> int:
        return len(self._partials)

    def place(
        self, keypair: K, place: Place, count: int, cipher: int, now: float, *, is_at_endpoint: bool
    ) -> Partial[K]:
        """Return the unit that a fragment belongs to.

        Raises PacketError ``fragment_header`` where count or cipher contradicts what came before.
        """
        if self._partials:
            self._expire(now)
        partial = self._partials.get(place)
        if partial is not None:
            if partial.count != count or partial.cipher != cipher:
                raise PacketError("fragment_header")
            return partial
        if is_at_endpoint:
            if self._at_endpoint.get(place[0], 0) >= UNITS_PER_SESSION:
                self._give_up_oldest(lambda index, each: each.is_at_endpoint and index == place[0])
        elif self._elsewhere >= UNITS_FROM_ELSEWHERE:
            self._give_up_oldest(lambda _, each: not each.is_at_endpoint)
        if len(self._partials) >= UNITS_TOTAL:
            self._give_up_oldest(lambda _, __: True)
        buffer = self._pool.pop() if self._pool else bytearray(LEAD + MAXIMUM_SEALED)
        partial = Partial(keypair, buffer, count, cipher, now, is_at_endpoint=is_at_endpoint)
        self._partials[place] = partial
        if is_at_endpoint:
            self._at_endpoint[place[0]] = self._at_endpoint.get(place[0], 0) + 1
        else:
            self._elsewhere += 1
        return partial

    def put(self, partial: Partial[K], number: int, rows: Bytes2D, last: int) -> bool:
        """Add consecutive fragments from *number* on, the last of which has *last* bytes; return whether all are there.

        The first copy of each stays.  Raises PacketError ``fragment_size`` where sizes contradict each other.
        """
        count, width = rows.shape
        is_end = number + count == partial.count
        whole = count - 1 if is_end else count
        if not is_end and last != width:
            raise PacketError("fragment_size")  # only the last of a unit may be shorter
        if whole:
            if partial.piece == 0:
                if (partial.count - 1) * width >= MAXIMUM_SEALED:
                    raise PacketError("fragment_size")
                partial.piece = width
            elif partial.piece != width:
                raise PacketError("fragment_size")
            self._copy(partial, number, rows[:whole])
        bit = 1 << partial.count - 1
        if is_end and not partial.have & bit:
            partial.tail = rows[-1, :last].tobytes()
            partial.have |= bit
            partial.missing -= 1
        return partial.missing == 0

    def take(self, place: Place) -> tuple[memoryview, Partial[K]]:
        """Return a complete unit, LEAD bytes before its sealed ones, and forget it.  It is valid until the next put().

        Raises PacketError ``fragment_size`` where the last fragment is larger than the others, or the whole too large.
        """
        partial = self._forget(place)
        start = LEAD + (partial.count - 1) * partial.piece
        end = start + len(partial.tail)
        if end > LEAD + MAXIMUM_SEALED or (partial.piece and len(partial.tail) > partial.piece):
            raise PacketError("fragment_size")
        partial.buffer[start:end] = partial.tail
        return memoryview(partial.buffer)[:end], partial

    def forget_keypair(self, index: int) -> None:
        """Forget the incomplete units of a keypair that is gone."""
        for place in [place for place in self._partials if place[0] == index]:
            self._forget(place)

    def _expire(self, now: float) -> None:
        """Give up units that have waited too long."""
        while self._partials:
            place, partial = next(iter(self._partials.items()))
            if partial.began + REASSEMBLY_TIME > now:
                return
            self._lost(self._forget(place))

    def _copy(self, partial: Partial[K], number: int, rows: Bytes2D) -> None:
        count, width = rows.shape
        bits = (1 << count) - 1 << number
        if not partial.have & bits:
            start = LEAD + number * width
            target = np.frombuffer(partial.buffer, dtype=np.uint8, count=count * width, offset=start)
            target.reshape(count, width)[:] = rows
            partial.have |= bits
            partial.missing -= count
            return
        for row in range(count):
            if not partial.have >> number + row & 1:
                self._copy(partial, number + row, rows[row : row + 1])

    def _forget(self, place: Place) -> Partial[K]:
        partial = self._partials.pop(place)
        if partial.is_at_endpoint:
            left = self._at_endpoint[place[0]] - 1
            if left:
                self._at_endpoint[place[0]] = left
            else:
                del self._at_endpoint[place[0]]
        else:
            self._elsewhere -= 1
        if len(self._pool) < UNITS_PER_SESSION:
            self._pool.append(partial.buffer)
        return partial

    def _give_up_oldest(self, belongs: Callable[[int, Partial[K]], bool]) -> None:
        for place, partial in self._partials.items():
            if belongs(place[0], partial):
                self._lost(self._forget(place))
                return


class WholeUnit:
    """The headers of all fragments of a unit of *count*, concatenated, as one number.

    Comparing numbers of some hundred bytes costs a third of what the same costs column by column.
    """

    __slots__ = ("_numbers", "_repeat")

    def __init__(self, count: int) -> None:
        self._repeat = sum(1 << HEADER_BITS * number for number in range(count))
        # The fragment's number is the second byte of its header.
        self._numbers = sum(number << HEADER_BITS * number + 8 for number in range(count))

    def are(self, headers: bytes) -> bool:
        """Return whether *headers*, the first of which has the number 0, are those of one unit in order."""
        found = int.from_bytes(headers, "little")
        return found == (found & FIRST_HEADER) * self._repeat + self._numbers


def ends_of_runs(words: Words) -> list[int]:
    """Return where runs of consecutive fragments of one unit end, given the header words: rows of four."""
    differs = words[1:] - words[:-1] != _STEP
    if not differs.any():
        return [len(words)]
    ends: list[int] = (np.flatnonzero(differs.any(axis=1)) + 1).tolist()
    return [*ends, len(words)]
