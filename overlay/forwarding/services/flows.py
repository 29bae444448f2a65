"""The table of flows: which server each one has, how far it is, and when it was seen last.

A key is the bytes that tell a flow from others; the value is a row of columns.  A million flows take less than 200 MB,
and nothing takes long at any size: the table consists of shards of at most some ten thousand flows, because a
dictionary of a million keys takes a tenth of a second to grow.  Flows that have not been seen for the time of their
state go in sweeps, a shard at a time.

Flows that nothing has proven (states.UNPROVEN) are the first to go when a shard is nearly full, the oldest before the
others: a flood of spoofed SYNs displaces itself, and never an established flow.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from overlay.forwarding.services.shortcuts import Shortcuts
from overlay.services.schedulers.scheduler import Loads
from overlay.services.states import CLOSING, OPEN, UNPROVEN, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

# Ours
SHARD = 16_384  # flows at most: a dictionary of so many grows in half a millisecond
ROWS = 256  # of a new shard; it grows by four
NEARLY = 0.9  # full, when flows that are not proven go
BATCH = 64  # one of so many of a shard goes at once: a look at all of it is worth that
REMOVED = 500  # flows at most in one step of a sweep
NEWS = 65_536  # flows at most that another director is still to be told of; the oldest go
LEARNT = 1 << 31  # beyond every second of CLOCK_BOOTTIME
_NUMBERS = tuple(range(SHARD))  # of rows: the same integers serve all shards

_IS_UNPROVEN, _IS_CLOSING, _IS_OPEN = (
    np.array([state in kinds for state in State]) for kinds in (UNPROVEN, CLOSING, OPEN)
)
_CLOSING = tuple(state in CLOSING for state in State)
_UNPROVEN = tuple(state in UNPROVEN for state in State)


class Shard:
    """A part of the table: a dictionary from keys to rows, and the rows' columns.

    The packet path reads and writes the columns itself.
    """

    __slots__ = ("free", "index", "keys", "seen", "server", "state", "told", "unproven")

    def __init__(self) -> None:
        self.index: dict[bytes, int] = {}
        self.keys: list[bytes] = []  # of rows up to the last that was ever used
        self.free: list[int] = []
        self.seen = array("d")  # when the last packet came
        self.state = array("B")
        self.server = array("H")
        self.told = array(
            "I"
        )  # up to when another director knows of its packets, with LEARNT if it told; 0 for never
        self.unproven = 0

    def row(self, key: bytes) -> int:
        """Return a row that belongs to *key* from now on; there are fewer than SHARD."""
        if self.free:
            row = self.free.pop()
            self.keys[row] = key
        else:
            row = _NUMBERS[len(self.keys)]
            if row == len(self.state):
                self._grow(min(SHARD, max(ROWS, row * 4)))
            self.keys.append(key)
        self.index[key] = row
        return row

    def _grow(self, rows: int) -> None:
        more = rows - len(self.state)
        self.seen = self.seen + array("d", bytes(8 * more))
        self.state = self.state + array("B", bytes(more))
        self.server = self.server + array("H", bytes(2 * more))
        self.told = self.told + array("I", bytes(4 * more))

    def note_told(self, row: int) -> None:
        """Note that another director knows what is known here of the flow of a row."""
        self.told[row] = int(self.seen[row]) + 1

    def note_learnt(self, row: int) -> None:
        """Note that what is known here of the flow of a row is what another director told."""
        self.told[row] = LEARNT + int(self.seen[row]) + 1

    def is_learnt(self, row: int) -> bool:
        """Return whether another director told of the flow of a row, and no packet has come here since."""
        return self.told[row] > LEARNT + self.seen[row]

    def columns(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        """Return the columns of when rows were seen, and of their states, as far as they were ever used."""
        used = len(self.keys)
        return np.frombuffer(self.seen)[:used], np.frombuffer(self.state, np.uint8)[:used]


_NO_SHARD = Shard()  # stands for all that have no flow; nothing is put into it


class FlowTable:
    """At most *limit* flows of one service, and how many each of its servers has (*loads*).

    Those that have had no packet for their time in *timeouts*, by state, are forgotten.  With *is_cache* the oldest
    makes room where there is none, else the new flow is refused.  *forgotten* gets the key of each flow that goes.
    set_limit() may give other limits, up to *largest*.
    """

    def __init__(
        self,
        limit: int,
        timeouts: Sequence[float],
        *,
        is_cache: bool = False,
        largest: int = 0,
        forgotten: Callable[[bytes], None] | None = None,
        shortcuts: Shortcuts | None = None,
    ) -> None:
        count = 1
        while count * SHARD < max(limit, largest):
            count *= 2
        self.shards = [_NO_SHARD] * count
        self.mask = count - 1
        self.loads = Loads()
        self.set_timeouts(timeouts)
        self.set_limit(limit, is_cache=is_cache)
        self._forgotten = forgotten
        self.shortcuts = shortcuts or Shortcuts()
        self._swept = 0  # the shard that is looked at next
        self._filled = 0  # shards that are there
        self.news: deque[bytes] | None = None  # keys of flows whose state changed, for another director
        self.news_of_all = (
            True  # or of those alone that have just been proven, or that another director knows
        )

    def __len__(self) -> int:
        return sum(len(shard.index) for shard in self.shards)

    def set_limit(self, limit: int, *, is_cache: bool) -> None:
        """Allow *limit* flows from now on; existing ones stay until others need their room."""
        self._most = max(1, min(SHARD, limit // len(self.shards)))
        self._nearly = max(1, int(self._most * NEARLY))
        self._batch = max(1, self._most // BATCH)
        self._is_cache = is_cache

    def set_timeouts(self, timeouts: Sequence[float]) -> None:
        """Forget flows after these times, by state, from now on."""
        self.timeouts = tuple(timeouts)
        self._timeouts = np.array(self.timeouts)

    def make_room(self, servers: int) -> None:
        """Count the flows of servers of indices up to *servers*."""
        more = servers - len(self.loads.active)
        self.loads.active += [0] * more
        self.loads.inactive += [0] * more

    def keep_news(self, *, is_wanted: bool) -> None:
        """Note in *news* which flows are proven or closed, or do not any more."""
        if not is_wanted:
            self.news = None
        elif self.news is None:
            self.news = deque(maxlen=NEWS)

    def find(self, key: bytes) -> tuple[Shard, int] | None:
        """Return the shard and the row of a flow, None if there is none."""
        shard = self.shards[hash(key) & self.mask]
        row = shard.index.get(key)
        return None if row is None else (shard, row)

    def is_over(self, shard: Shard, row: int, now: float) -> bool:
        """Return whether the time of a flow is over that no sweep has come to yet."""
        return shard.seen[row] + self.timeouts[shard.state[row]] < now

    def add(self, key: bytes, state: State, server: int, now: float) -> bool:
        """Add a new flow to the server of an index; return False if there is no room for it."""
        place = hash(key) & self.mask
        shard = self.shards[place]
        if shard is _NO_SHARD:
            shard = self.shards[place] = Shard()
            self._filled += 1
        flows = len(shard.index)
        if (
            flows >= self._nearly
            and (flows >= self._most or shard.unproven >= self._batch)
            and not self._evict(shard)
        ):
            return False
        column = shard.seen
        row = shard.row(key)
        if shard.seen is not column:
            self.shortcuts.forget_flows()
        shard.seen[row], shard.state[row], shard.server[row] = now, state, server
        shard.told[row] = 0
        if _UNPROVEN[state]:
            shard.unproven += 1
        self._count(state, server, 1)
        return True

    def set_state(self, shard: Shard, row: int, state: State, *, is_news: bool = True) -> None:
        """Put a flow in another state, which *is_news* unless another director told of it."""
        before = shard.state[row]
        if self.news is not None and is_news and (self.news_of_all or _UNPROVEN[before] or shard.told[row]):
            self.news.append(shard.keys[row])
        shard.unproven += _UNPROVEN[state] - _UNPROVEN[before]
        if _CLOSING[before] != _CLOSING[state]:
            server = shard.server[row]
            self._count(before, server, -1)
            self._count(state, server, 1)
        shard.state[row] = state

    def move(self, shard: Shard, row: int, server: int) -> None:
        """Give a flow to another server."""
        self.shortcuts.forget_flow(shard.keys[row])
        state = shard.state[row]
        self._count(state, shard.server[row], -1)
        self._count(state, server, 1)
        shard.server[row] = server

    def remove(self, shard: Shard, key: bytes) -> None:
        """Forget a flow that is there."""
        self.shortcuts.forget_flow(key)
        row = shard.index.pop(key)
        state = shard.state[row]
        shard.unproven -= _UNPROVEN[state]
        self._count(state, shard.server[row], -1)
        shard.state[row], shard.keys[row] = State.NONE, b""
        shard.free.append(row)
        if self._forgotten is not None:
            self._forgotten(key)

    def _count(self, state: int, server: int, change: int) -> None:
        counts = self.loads.inactive if _CLOSING[state] else self.loads.active
        counts[server] += change

    def _evict(self, shard: Shard) -> bool:
        """Forget a batch of the oldest flows of *shard* that may go, and return whether there is room then."""
        seen, state = shard.columns()
        rows = np.flatnonzero(_IS_UNPROVEN[state])
        if not len(rows):
            rows = np.flatnonzero(_IS_CLOSING[state])
        if not len(rows) and self._is_cache:
            rows = np.flatnonzero(state)
        if len(rows) > self._batch:
            rows = rows[np.argpartition(seen[rows], self._batch)[: self._batch]]
        for row in rows.tolist():
            self.remove(shard, shard.keys[row])
        return len(shard.index) < self._most

    def sweep(self, now: float) -> bool:
        """Forget flows of one shard whose time is over, and return False once all shards have had their turn."""
        if not self._filled:
            return False
        shard = self.shards[self._swept]
        seen, state = shard.columns()
        due = np.flatnonzero((state != 0) & (seen + self._timeouts[state] < now))
        for row in due[:REMOVED].tolist():
            self.expire(shard, row, now)
        if len(due) > REMOVED:
            return True
        if not shard.index and shard is not _NO_SHARD:
            self.shards[self._swept] = _NO_SHARD
            self._filled -= 1
        self._swept = (self._swept + 1) & self.mask
        return self._swept != 0

    def expire(self, shard: Shard, row: int, now: float) -> None:  # noqa: ARG002  others know better
        """Forget the flow of a row, whose time is over."""
        self.remove(shard, shard.keys[row])

    def clear(self) -> Iterator[None]:
        """Forget all flows without reporting them, a piece at each step of the iterator."""
        for place in range(len(self.shards)):
            self.shortcuts.forget_flows()
            self.shards[place] = _NO_SHARD
            yield
        self._filled = 0
        self.loads = Loads([0] * len(self.loads.active), [0] * len(self.loads.inactive))

    def open_keys(self, *, is_all: bool) -> Iterator[bytes]:
        """Yield the keys of flows that are proven and open: all, or those with packets not reported yet."""
        for place in range(len(self.shards)):
            shard = self.shards[place]
            seen, state = shard.columns()
            told = np.frombuffer(shard.told, np.uint32)[: len(seen)] & (LEARNT - 1)
            rows = np.flatnonzero(_IS_OPEN[state] & (is_all | (seen >= told))).tolist()
            for row in rows:
                if shard.keys[row]:
                    yield shard.keys[row]
