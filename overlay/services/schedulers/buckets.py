"""Hashing into a small table of buckets, as the kernel's sh and dh do."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from overlay.services.schedulers.scheduler import InOrder, Loads, Real

if TYPE_CHECKING:
    from collections.abc import Sequence

# Specification (the kernel's ip_vs_sh.c and ip_vs_dh.c)
BUCKETS = 256


class HashBuckets(InOrder):
    """Looks up a hash in 256 buckets, which are assigned by going through the list of servers again and again.

    A server that takes no new flows keeps its buckets, so that the flows of all others stay where they are; flows in
    its own buckets are hashed again until they find another server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: list[Real] = []

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers* from now on."""
        super().set_servers(servers)
        turns = [server for server in servers for _ in range(self.in_a_row(server))]
        self._buckets = [turns[place % len(turns)] for place in range(BUCKETS)] if turns else []

    def in_a_row(self, server: Real) -> int:
        """Return how many buckets *server* has in a row: its weight, or one if it is drained, to keep its place."""
        return min(max(server.weight, 1), BUCKETS)

    def choose(self, flow: int, loads: Loads) -> int | None:
        """Return the index of the server into whose bucket *flow* falls, or of the next choice of this flow."""
        takers = self.takers(loads)
        if not takers:
            return None
        server = self._buckets[flow % BUCKETS]
        for again in range(1, BUCKETS):
            if server.weight and server.index not in loads.full:
                return server.index
            server = self._buckets[zlib.crc32(again.to_bytes(2, "big"), flow) % BUCKETS]
        return takers[flow % len(takers)].index
