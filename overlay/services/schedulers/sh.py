"""Source hashing: each client has one server."""

from __future__ import annotations

from overlay.services.schedulers.buckets import HashBuckets
from overlay.services.schedulers.scheduler import Hashed, Kind


class SourceHashing(HashBuckets):
    """Chooses by the client's address."""


KIND = Kind(
    "sh",
    SourceHashing,
    "chooses by the client's address in 256 buckets, which servers have by weight; "
    "a client of a drained server goes to another",
    hashed=Hashed.CLIENT,
    is_function=True,
)
