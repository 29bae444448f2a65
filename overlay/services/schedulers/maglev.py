"""Maglev: consistent hashing by a table of slots (Eisenbud et al., NSDI 2016, section 3.4).

Each server has its own order of preference for the slots of the table.  The servers take turns, and each takes the next
free slot in its order, until none is left.  The servers are in the order of their keys, and everything else is computed
from the keys and the weights, so every director has the same table.  If a server goes, its slots are shared among the
others, and few others move.

Weights work as in katran (MaglevHashV2.cpp): in each round a server's account grows by its weight, and the server has a
turn if the account has reached the largest weight, which is then subtracted.
"""

from __future__ import annotations

import functools
import hashlib
import math
import zlib
from array import array
from typing import TYPE_CHECKING

from overlay.services.schedulers.scheduler import Hashed, Kind, Loads, Real

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Ours
SLOTS = 65_537  # a prime, as in katran: 128 KiB
SLOTS_PER_SERVER = 100  # at least, so that each has its share to a hundredth
REHASHES = 64  # before any server that takes flows is chosen: even an outdated table finds one almost at once
RECENT = 8  # tables that are kept, of 128 KiB
PIECE = 2000  # steps of filling a table; each takes 50 to 100 ns
_FREE = 0xFFFF


def slots_for(servers: int) -> int:
    """Return the size of the table for a number of servers, a prime: 65,537 up to 655 of them."""
    size = max(SLOTS, servers * SLOTS_PER_SERVER)
    while any(size % divisor == 0 for divisor in range(2, math.isqrt(size) + 1)):
        size += 1
    return size


def likes(key: str, slots: int) -> tuple[int, int]:
    """Return the slot that a server prefers, and the step from each slot to its next choice."""
    digest = hashlib.blake2s(key.encode(), digest_size=16).digest()
    first, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return first % slots, step % (slots - 1) + 1


def fill(
    table: array[int], likings: Iterable[tuple[int, int]], weights: Sequence[int], piece: int = PIECE
) -> Iterator[None]:
    """Fill *table* with the places of servers, whose preferences are *likings*; yield after each piece of work.

    All weights are above 0.  Nearly all slots are found by trying.  For the last ones, that would take as many steps as
    the table has slots, so they are sorted in the order in which each server comes to them.
    """
    assert len(weights) < _FREE, "a place has 16 bits in the table"
    slots, left, tail = len(table), len(table), max(8, len(table) // (16 * len(weights)))
    following, steps, done = [], [], 0
    for first, step in likings:
        following.append(first)
        steps.append(step)
        done += 20
        if done >= piece:
            done = 0
            yield
    largest, accounts = max(weights), [0] * len(weights)
    ordered: list[list[int]] = []
    while left:
        for place, weight in enumerate(weights):
            account = accounts[place] + weight
            done += 1
            if account < largest:
                accounts[place] = account
                continue
            accounts[place] = account - largest
            if ordered:
                slot = ordered[place].pop()
                while table[slot] != _FREE:
                    slot = ordered[place].pop()
            else:
                slot, step = following[place], steps[place]
                while table[slot] != _FREE:
                    done += 1
                    slot += step
                    if slot >= slots:
                        slot -= slots
                following[place] = slot
            table[slot] = place
            left -= 1
            if not left:
                return
            if left <= tail and not ordered:
                free: list[int] = []
                for start in range(0, slots, SLOTS):
                    free += _free(table, start, start + SLOTS)
                    yield
                for first, step in zip(following, steps, strict=True):
                    ordered.append(_in_order(free, first, step, slots))
                    done += 4 * left
                    if done >= piece:
                        done = 0
                        yield
            if done >= piece:
                done = 0
                yield


def _free(table: array[int], start: int, end: int) -> list[int]:
    """Return the slots of *table* from *start* to *end* that are free."""
    part = table[start:end]
    free, at = [], -1
    for _ in range(part.count(_FREE)):
        at = part.index(_FREE, at + 1)
        free.append(start + at)
    return free


def _in_order(free: list[int], first: int, step: int, slots: int) -> list[int]:
    """Return *free* slots in reverse order of preference of a server that continues from *first*."""
    inverse = pow(step, -1, slots)
    return sorted(free, key=lambda slot: (slot - first) * inverse % slots, reverse=True)


class SlotTable:
    """The slots of some servers; each of its users does part of the work of filling it."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        """Begin the table of *servers*, keys and weights, sorted by their keys."""
        count = slots_for(len(servers))
        likings = (likes(key, count) for key, _ in servers)
        self.slots = array("H", [_FREE]) * count
        self._work = fill(self.slots, likings, [weight for _, weight in servers])

    def prepare(self) -> bool:
        """Fill a part of the table, and return whether more remains to be done."""
        for _ in self._work:
            return True
        return False


@functools.lru_cache(RECENT)
def table_of(servers: tuple[tuple[str, int], ...]) -> SlotTable:
    """Return the table of *servers*: a new one, or a recent one that has been begun or filled."""
    return SlotTable(servers)


class Maglev:
    """Chooses by the hash of a flow, with a table that prepare() makes.

    Schedulers with the same servers share a table, and if a server soon comes back, its table still exists.  Until a
    table is ready, the previous one is in use.  Servers that no longer take flows are skipped at once: the hash is
    hashed again until it finds one that does.
    """

    def __init__(self) -> None:
        self._servers: tuple[
            tuple[str, int], ...
        ] = ()  # keys and weights, sorted: the next table is made from them
        self._keys: list[str] = []  # of the table in use
        self._indices: list[int] = []  # of the servers of the table in use; -1 for one that takes no flows
        self._table = array("H")
        self._coming: SlotTable | None = None
        self._by_key: dict[str, int] = {}  # the index of each that takes flows

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers*, in any order, once prepare() returns that nothing is left to do."""
        live = tuple(sorted((server.key, server.weight) for server in servers if server.weight))
        self._by_key = {server.key: server.index for server in servers if server.weight}
        if live != self._servers:
            self._servers = live
            self._coming = table_of(live) if live else None
        self._point()

    def prepare(self) -> bool:
        """Fill a part of the new table, and return whether more remains to be done."""
        if self._coming is None:
            return False
        if self._coming.prepare():
            return True
        self._table, self._coming = self._coming.slots, None
        self._keys = [key for key, _ in self._servers]
        self._point()
        return False

    @property
    def is_ready(self) -> bool:
        """Whether there is a table, even an older one, or no server to make one for."""
        return bool(self._table) or not self._servers

    def _point(self) -> None:
        self._indices = [self._by_key.get(key, -1) for key in self._keys]

    def choose(self, flow: int, loads: Loads) -> int | None:
        """Return the index of the server into whose slot *flow* falls, or of the next choice of this flow.

        None if there is no table yet, or no server that takes flows.
        """
        table, indices, full = self._table, self._indices, loads.full
        if not table:
            return None
        index = indices[table[flow % len(table)]]
        if index >= 0 and index not in full:
            return index
        for again in range(1, REHASHES):
            index = indices[table[zlib.crc32(again.to_bytes(2, "big"), flow) % len(table)]]
            if index >= 0 and index not in full:
                return index
        takers = [index for _, index in sorted(self._by_key.items()) if index not in full]
        return takers[flow % len(takers)] if takers else None


KIND = Kind(
    "maglev",
    Maglev,
    "chooses by the client's address and port in a table that is the same on every director, according to the weights",
    hashed=Hashed.FLOW,
    is_function=True,
)
