"""TAI64N timestamps, which distinguish a new initiation from a replay (whitepaper section 5.1).

A TAI64N label is 8 bytes of seconds and 4 bytes of nanoseconds, both big endian, so that labels compare as bytes.  As
in other implementations, they count from 1970 plus the ten seconds that TAI was ahead then, without leap seconds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Specification (https://cr.yp.to/libtai/tai64.html)
TAI64N = struct.Struct(">QI")
_TAI64_EPOCH = 2**62 + 10  # the label of 1970-01-01 00:00:00 UTC

# Ours
_GRAIN_NS = 2**24  # 16.8 ms; a finer stamp would tell the network how fast we compute
_PLAUSIBLE_NS = 1_577_836_800 * 10**9  # 2020-01-01; this program did not exist before
_SECOND_NS = 10**9


def seconds_between(earlier: bytes, later: bytes) -> float:
    """Return the seconds from one stamp to the other, negative if *later* is the earlier one."""
    (before, before_ns), (after, after_ns) = TAI64N.unpack(earlier), TAI64N.unpack(later)
    return float(after - before + (after_ns - before_ns) / _SECOND_NS)


class Tai64nClock:
    """Makes the stamps of a node.  Each is greater than all before it, whatever the wall clock does."""

    __slots__ = ("_last_ns", "_wall_ns")

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        """Take the wall clock: nanoseconds since 1970, UTC."""
        self._wall_ns = wall_ns
        self._last_ns = -1

    def stamp(self) -> bytes:
        """Return a new stamp, 12 bytes.

        It is the wall time without its last bits.  If that is not greater than the last stamp, because both fall into
        one grain or the clock was set back, it is the last stamp plus a nanosecond.
        """
        wall = max(self._wall_ns(), 0)
        self._last_ns = max(wall - wall % _GRAIN_NS, self._last_ns + 1)
        seconds, nanoseconds = divmod(self._last_ns, _SECOND_NS)
        return TAI64N.pack(_TAI64_EPOCH + seconds, nanoseconds)

    def ahead(self, stamp: bytes, passed: float) -> float:
        """Return how many seconds a clock that showed *stamp* *passed* seconds ago is ahead of the wall clock."""
        seconds, nanoseconds = TAI64N.unpack(stamp)
        return float(
            seconds - _TAI64_EPOCH + nanoseconds / _SECOND_NS + passed - self._wall_ns() / _SECOND_NS
        )

    def is_plausible(self) -> bool:
        """Return whether the wall clock shows 2020 or later.

        If it does not, peers that have seen this node with a correct clock will take its initiations for replays.
        """
        return self._wall_ns() >= _PLAUSIBLE_NS
