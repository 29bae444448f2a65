"""The addresses that unencrypted peers may send from by their `sources`, as ranges that the compiled twin searches.

Two prefixes decide whether a peer may send from an address: the longest of its `sources` and the longest of the table.
Between two addresses at which a prefix begins or ends the answer is the same.  So the twin gets those at which it
changes, and finds an address among them, however many clients there are.
"""

from __future__ import annotations

from heapq import merge
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.forwarding.peer import LivePeer, Unsealed
    from overlay.forwarding.table import Prefixes
    from overlay.forwarding.upcalls import Upcalls

STEP = 16  # addresses looked at before packets have their turn
SORTED = 128  # addresses sorted before that


class SourceRanges:
    """Tells the twin the ranges of those peers that have sent something from them."""

    def __init__(self, core: Upcalls) -> None:
        self._core = core
        self._told: dict[Unsealed, Prefixes[bool]] = {}  # the twin knows the ranges of these, or is about to

    def forget(self) -> None:
        """Let the twin forget all ranges until they are needed again: the table or the permits have changed."""
        for unsealed in self._told:
            unsealed.tell_ranges(b"", b"")
        self._told = {}

    def want(self, peer: LivePeer) -> None:
        """Tell the twin the ranges of *peer*, which are found between packets.

        Not if a packet that is admitted for a service must be noted for the way back: Python has to see it.
        """
        sources = peer.unsealed.sources
        is_told = sources is None or self._told.get(peer.unsealed) is sources
        if sources is None or is_told or self._core.services.permits.returning:
            return
        self._told[peer.unsealed] = sources
        self._core.jobs.add("source ranges", self._find(peer, sources, self._told), lambda _, __: None)

    def _find(
        self, peer: LivePeer, sources: Prefixes[bool], told: dict[Unsealed, Prefixes[bool]]
    ) -> Iterator[None]:
        """Find the ranges of *peer* step by step, and pass them on if nothing that they depend on changes in
        between.
        """
        core, found = self._core, []
        for size in (4, 16):
            bounds = chain(sources.bounds(size), core.table.bounds(size))
            runs = []
            while run := sorted(islice(bounds, SORTED)):
                runs.append(run)
                yield
                if told is not self._told:
                    return
            changes, may_send, before = bytearray(), False, -1
            for number, place in enumerate(merge(*runs)):
                if number % STEP == 0:
                    yield
                    if told is not self._told:
                        return
                if place == before:
                    continue
                before, address = place, place.to_bytes(size, "big")
                if core.table.has_source(peer, address) != may_send:
                    may_send = not may_send
                    changes += address
            found.append(bytes(changes))
        if peer.unsealed.sources is sources:
            peer.unsealed.tell_ranges(*found)
