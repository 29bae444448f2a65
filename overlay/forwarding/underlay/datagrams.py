"""How many datagrams the buffers of a send are, and which are left when some have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.forwarding.underlay.mmsg import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_all(buffers: Sequence[memoryview], size: int) -> int:
    """Return how many datagrams of *size* bytes, but for shorter ones, *buffers* are."""
    return sum(-(-len(view) // size) for view in buffers)


def count_raw(buffers: Sequence[memoryview], size: int) -> int:
    """Return how many packets *buffers* are, as a carrier understands them."""
    return max(len(buffers), -(-len(buffers[0]) // size))


def count_call(buffers: Sequence[memoryview], size: int) -> int:
    """Return how many packets of *buffers* a carrier sends in one call."""
    return min(count_raw(buffers, size), MESSAGES)


def behind(buffers: Sequence[memoryview], size: int, count: int) -> Sequence[memoryview]:
    """Return *buffers*, as a carrier understands them, without the first *count* packets."""
    if len(buffers) == 1 and len(buffers[0]) > size:
        rest = buffers[0][count * size :]
        return [rest] if rest else []
    return buffers[count:]


def count(buffers: Sequence[memoryview | bytes], segment: int) -> int:
    """Return how many datagrams *buffers* are, cut into *segment* bytes unless that is 0."""
    return -(-sum(map(len, buffers)) // segment) if segment else 1
