"""Persistence: a client, or a network of clients, keeps its server for a while (templates, as ip_vs calls them).

A template is kept while flows of its client are there, and for the time of persistence after the last of them began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.forwarding.services.flows import FlowTable
from overlay.services.states import State

if TYPE_CHECKING:
    from overlay.forwarding.services.flows import Shard

# Ours
PROLONGED = 60.0  # seconds, as often as a template's time is over while its client has flows


def network_of(address: bytes, length: int) -> bytes:
    """Return the first *length* bits of an address, all others being 0."""
    size = len(address)
    if length >= size * 8:
        return address
    shift = size * 8 - length
    return (int.from_bytes(address, "big") >> shift << shift).to_bytes(size, "big")


class Templates(FlowTable):
    """The servers of clients.  Keys are what network_of() returns.

    *loads* has how many clients each server has; the states are not used.
    """

    def __init__(self, limit: int, persistence: float) -> None:
        super().__init__(limit, [persistence] * len(State), is_cache=True)
        self._flows: dict[bytes, int] = {}  # of each client that has any

    def server(self, client: bytes, now: float) -> int | None:
        """Return the index of the server that *client* has, None if it has none."""
        found = self.find(client)
        if found is None:
            return None
        shard, row = found
        if self.is_over(shard, row, now) and client not in self._flows:
            return None
        return shard.server[row]

    def began(self, client: bytes, server: int, now: float, *, is_counted: bool = True) -> None:
        """Note a new flow of *client* to a server, which is the client's from now on.

        One that *is_counted* keeps the template until ended() is called for it.
        """
        found = self.find(client)
        if found is None:
            self.add(client, State.ESTABLISHED, server, now)
        else:
            shard, row = found
            shard.seen[row] = now
            if shard.server[row] != server:
                self.move(shard, row, server)
        if is_counted:
            self._flows[client] = self._flows.get(client, 0) + 1

    def learn(self, client: bytes, server: int, seen: float, *, is_counted: bool) -> None:
        """Note that *client* has a server at another director, since *seen* at the earliest; the newer word holds."""
        found = self.find(client)
        if found is None and self.add(client, State.ESTABLISHED, server, seen):
            found = self.find(client)
        if found is not None:
            shard, row = found
            if seen >= shard.seen[row] or shard.is_learnt(row):
                if shard.server[row] != server:
                    self.move(shard, row, server)
                shard.seen[row] = max(seen, shard.seen[row])
            shard.note_learnt(row)
        if is_counted:
            self._flows[client] = self._flows.get(client, 0) + 1

    def ended(self, client: bytes) -> None:
        """Note that a flow of *client* is over."""
        left = self._flows.get(client, 0) - 1
        if left > 0:
            self._flows[client] = left
        else:
            self._flows.pop(client, None)

    def expire(self, shard: Shard, row: int, now: float) -> None:
        """Forget the template of a row, or keep it for another minute if its client has flows."""
        client = shard.keys[row]
        if client in self._flows:
            shard.seen[row] = now - self.timeouts[State.ESTABLISHED] + PROLONGED
        else:
            self.remove(shard, client)
