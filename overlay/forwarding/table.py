"""The longest-prefix match that packets are forwarded by, and how it changes between two of them.

Prefixes of one length are one dictionary from the leading bits, as a number, to a peer; a lookup asks the lengths
in use from the longest on.  Answers are remembered by the address's bytes, so a flow costs one dictionary look-up
per packet however many prefixes there are.

A change of any size arrives in pieces.  Two tables are kept: pieces go to the one not in use, the last one switches
by one assignment, and the pieces are then applied to the other as well, again piece by piece.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

# Ours
REMEMBERED = 16_384  # addresses; a scan of more only empties the memory


class Prefixes(Generic[T]):
    """One table: longest-prefix match over IPv4 (4-byte) and IPv6 (16-byte) addresses."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, dict[int, T]]] = {4: {}, 16: {}}
        self._order: dict[int, list[tuple[int, dict[int, T]]]] = {4: [], 16: []}

    def insert(self, packed: bytes, length: int, value: T) -> None:
        """Point the prefix of *length* bits of *packed* at *value*, in place of what it was."""
        size = len(packed)
        tables = self._tables[size]
        if length not in tables:
            tables[length] = {}
            self._sort(size)
        tables[length][int.from_bytes(packed, "big") >> (size * 8 - length)] = value

    def remove(self, packed: bytes, length: int) -> None:
        """Forget a prefix; one that is not there is not an error."""
        size = len(packed)
        table = self._tables[size].get(length)
        if table is None:
            return
        table.pop(int.from_bytes(packed, "big") >> (size * 8 - length), None)
        if not table:
            del self._tables[size][length]
            self._sort(size)

    def lookup(self, address: bytes) -> T | None:
        """Return the value of the longest prefix that holds *address*, or None."""
        number = int.from_bytes(address, "big")
        for shift, table in self._order[len(address)]:
            value = table.get(number >> shift)
            if value is not None:
                return value
        return None

    def length(self, address: bytes) -> int:
        """Return the length of the longest prefix that holds *address*, -1 without any."""
        number, bits = int.from_bytes(address, "big"), len(address) * 8
        for shift, table in self._order[len(address)]:
            if number >> shift in table:
                return bits - shift
        return -1

    def bounds(self, size: int) -> Iterator[int]:
        """Yield where prefixes of addresses of *size* bytes begin, and where what is behind one begins.

        They are those that there are now, whatever changes meanwhile, in no order, and some come more than once.
        """
        prefixes = [(shift, list(table)) for shift, table in self._order[size]]
        last = (1 << size * 8) - 1
        return (
            bound
            for shift, numbers in prefixes
            for number in numbers
            for bound in (number << shift, (number + 1) << shift)
            if bound <= last
        )

    def _sort(self, size: int) -> None:
        self._order[size] = [
            (size * 8 - length, table) for length, table in sorted(self._tables[size].items(), reverse=True)
        ]


Change = tuple[bytes, int, T | None]
"""A prefix and its new value; None takes it away."""


class RouteTable(Generic[T]):
    """What is in force, and the change to it that is being prepared."""

    def __init__(self) -> None:
        self._live: Prefixes[T] = Prefixes()
        self._shadow: Prefixes[T] = Prefixes()
        self._staged: list[list[Change[T]]] = []
        self._behind: deque[list[Change[T]]] = deque()
        self.remembered: dict[bytes, T | None] = {}

    def find(self, address: bytes) -> T | None:
        """Return whom *address* belongs to.  The packet path asks ``remembered`` first."""
        if len(self.remembered) >= REMEMBERED:
            self.remembered.clear()
        value = self.remembered[address] = self._live.lookup(address)
        return value

    def length(self, address: bytes) -> int:
        """Return the length of the longest prefix that holds *address*, -1 without any."""
        return self._live.length(address)

    def bounds(self, size: int) -> Iterator[int]:
        """Yield where prefixes of addresses of *size* bytes begin and end, as Prefixes.bounds() does."""
        return self._live.bounds(size)

    def stage(self, changes: Iterable[Change[T]]) -> None:
        """Add a piece of a change; lookups do not see it before commit()."""
        while self.catch_up():
            pass
        piece = list(changes)
        self._staged.append(piece)
        self._apply(self._shadow, piece)

    def commit(self) -> None:
        """Put every staged piece in force at once."""
        self._live, self._shadow = self._shadow, self._live
        self._behind.extend(self._staged)
        self._staged = []
        self.remembered = {}

    def catch_up(self) -> bool:
        """Apply one more piece to the table not in use; return whether there is more to do."""
        if self._behind:
            self._apply(self._shadow, self._behind.popleft())
        return bool(self._behind)

    @staticmethod
    def _apply(table: Prefixes[T], piece: list[Change[T]]) -> None:
        for packed, length, value in piece:
            if value is None:
                table.remove(packed, length)
            else:
                table.insert(packed, length, value)
