"""How sure a median is."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_interval(values: Sequence[float], confidence: float = 0.9) -> tuple[float, float, float]:
    """Return (low, median, high): the median of *values*, and where that of their source lies.

    The bounds are order statistics, so nothing is assumed of the distribution but that the values are independent.
    Of n values the number below the source's median has the binomial distribution of n tosses of a fair coin.  The
    k-th least and the k-th greatest value hold the median between them unless fewer than k values lie on one of its
    sides, so with the probability 1 - 2 P(fewer than k of n tosses).  The greatest k that leaves at least *confidence*
    is taken: of 15 values and 0.9 the 4th least and the 4th greatest, which hold it with 0.965.

    Where even the least and the greatest value are not enough, as with 4 values and 0.9, the bounds are infinite.
    """
    ordered = sorted(values)
    count = len(ordered)
    rank = 0
    outside = 2 / 2**count  # of both sides: the chance that fewer than rank + 1 values lie on one of them
    while 1 - outside >= confidence:
        rank += 1
        outside += 2 * math.comb(count, rank) / 2**count
    median = statistics.median(ordered)
    if rank == 0:
        return -math.inf, median, math.inf
    return ordered[rank - 1], median, ordered[count - rank]
