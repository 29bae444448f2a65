"""Confidence intervals of medians."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_interval(values: Sequence[float], confidence: float = 0.9) -> tuple[float, float, float]:
    """Return (low, median, high): the median of *values*, and bounds for the median of their distribution.

    The bounds are order statistics, so the only assumption is that the values are independent.  Of n values, the number
    below the distribution's median has the binomial distribution of n tosses of a fair coin.  The median lies between
    the k-th least and the k-th greatest value unless fewer than k values are on one side of it, so with the probability
    1 - 2 P(fewer than k of n tosses).  The greatest k that leaves at least *confidence* is used: for 15 values and 0.9
    the 4th least and the 4th greatest, with a probability of 0.965.

    If even the least and the greatest value are not enough, as with 4 values and 0.9, the bounds are infinite.
    """
    ordered = sorted(values)
    count = len(ordered)
    rank = 0
    outside = 2 / 2**count  # the probability that fewer than rank + 1 values are on one of the two sides
    while 1 - outside >= confidence:
        rank += 1
        outside += 2 * math.comb(count, rank) / 2**count
    median = statistics.median(ordered)
    if rank == 0:
        return -math.inf, median, math.inf
    return ordered[rank - 1], median, ordered[count - rank]
