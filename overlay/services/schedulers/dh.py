"""Destination hashing: each address of the service has one server."""

from __future__ import annotations

from overlay.services.schedulers.buckets import HashBuckets
from overlay.services.schedulers.scheduler import Hashed, Kind, Real


class DestinationHashing(HashBuckets):
    """Chooses by the address that the client connects to."""

    def in_a_row(self, server: Real) -> int:  # noqa: ARG002
        """Return 1: weights do not matter."""
        return 1


KIND = Kind(
    "dh",
    DestinationHashing,
    "chooses by the address of the service, so that each address has one server; weights do not matter, except for 0",
    hashed=Hashed.ADDRESS,
    is_function=True,
)
