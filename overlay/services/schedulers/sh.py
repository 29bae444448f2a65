"""Source hashing: a client has one server."""

from __future__ import annotations

from overlay.services.schedulers.buckets import BUCKETS, Buckets
from overlay.services.schedulers.scheduler import Hashed, Kind, Real


class SourceHashing(Buckets):
    """Chooses by the client's address."""

    def in_a_row(self, server: Real) -> int:
        """Return its weight; one for a drained server, which has its place in the round."""
        return min(max(server.weight, 1), BUCKETS)


KIND = Kind(
    "sh",
    SourceHashing,
    "chooses by the client's address in 256 buckets, which servers have by weight; a client of a drained server goes to another",
    hashed=Hashed.CLIENT,
    is_function=True,
)
