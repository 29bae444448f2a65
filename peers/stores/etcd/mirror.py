"""What is known about a network's keys: the last listing, and all changes since.

An etcd whose history is not the one that was known, because it is another or was put back from a backup, is not
followed: a table that was in force might come back, or go.  A person says which is right; see accept().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.stores.etcd.layout import show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peers.stores.etcd.messages import Header, KeyValue, Listing, Notice

# Ours
HANDOVER = 60.0  # seconds; a lease that is handed over looks like a deletion and a creation


class HistoryError(Exception):
    """The etcd that answers has another past than the one that was known.  The text says how that shows."""


class Mirror:
    """The keys as they were at *revision* of *cluster*; 0 and None before anything is known."""

    def __init__(self, cluster: int | None = None, revision: int = 0, kvs: Iterable[KeyValue] = ()) -> None:
        self.cluster, self.revision = cluster, revision
        self.kvs: dict[bytes, KeyValue] = {kv.key: kv for kv in kvs}
        self.departed: dict[bytes, tuple[KeyValue, float]] = {}
        """Keys that were deleted, as they were, and when: for a minute."""
        self.generation = 0
        """Another number after each change of the keys."""

    def check(self, header: Header, kvs: Iterable[KeyValue] = ()) -> None:
        """Raise HistoryError where *header*, or keys that were read with it, contradict what is known."""
        if self.cluster is None:
            return
        if header.cluster != self.cluster:
            raise HistoryError(f"it is another cluster ({header.cluster:x}) than before ({self.cluster:x})")
        if header.revision < self.revision:
            raise HistoryError(
                f"its revision went back from {self.revision} to {header.revision}, as after a restored backup"
            )
        for kv in kvs:
            known = self.kvs.get(kv.key)
            if kv.modified <= self.revision and (known is None or known.modified != kv.modified):
                raise HistoryError(
                    f"{show(kv.key)} is not as it was at revision {kv.modified}, as after a restored backup"
                )

    def take_listing(self, listing: Listing, now: float) -> None:
        """Replace what was known by *listing*, which is complete.  Raises HistoryError."""
        self.check(listing.header)
        kvs = {kv.key: kv for kv in listing.kvs}
        for key, kv in self.kvs.items():
            if key not in kvs:
                self.departed[key] = kv, now
        if kvs != self.kvs:
            self.generation += 1
        for key in kvs:
            self.departed.pop(key, None)
        self.kvs = kvs
        self.cluster, self.revision = listing.header.cluster, listing.header.revision

    def take_notice(self, notice: Notice, now: float) -> None:
        """Take in what a watch told; what was known already is passed over.  Raises HistoryError."""
        if self.cluster is not None and notice.header.cluster != self.cluster:
            self.check(notice.header)
        for event in notice.events:
            kv = event.kv
            if kv.modified <= self.revision:
                continue
            self.generation += 1
            if event.is_deleted:
                gone = self.kvs.pop(kv.key, None)
                if gone is not None:
                    self.departed[kv.key] = gone, now
            else:
                self.kvs[kv.key] = kv
                self.departed.pop(kv.key, None)
        if notice.events:
            self.revision = max(self.revision, *(event.kv.modified for event in notice.events))

    def forget_departed(self, now: float) -> bool:
        """Forget those that are gone for good; return whether there were any."""
        gone = [key for key, (_, since) in self.departed.items() if now - since >= HANDOVER]
        for key in gone:
            del self.departed[key]
        return bool(gone)

    def accept(self) -> None:
        """Let the next listing have any history: an administrator says that it is right."""
        self.cluster, self.revision = None, 0
