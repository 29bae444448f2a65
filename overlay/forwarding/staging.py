"""Packets that wait for a handshake, bounded for each peer and for all; the oldest goes first."""

from __future__ import annotations

from collections import deque

# Ours
STAGED_BYTES = 256 * 1024  # per peer: four super-packets, or a burst of small ones
STAGED_BYTES_TOTAL = 16 * 1024 * 1024
STAGED_PACKETS_TOTAL = 65_536  # small packets cost more memory than their bytes


class Staging:
    """What is staged, by peer number.  A packet is kept as it was read from the tun, with its virtio header."""

    def __init__(self, per_peer: int = STAGED_BYTES, total: int = STAGED_BYTES_TOTAL) -> None:
        self._per_peer, self._total = per_peer, total
        self._queues: dict[int, deque[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._arrivals: deque[tuple[int, bytes]] = deque()  # oldest first; may name packets that are gone
        self._bytes = self._packets = 0

    def add(self, peer: int, packet: bytes) -> list[tuple[int, bytes]]:
        """Stage *packet* and return the (peer, packet) pairs that were dropped for it, oldest first."""
        dropped = []
        queue = self._queues.setdefault(peer, deque())
        queue.append(packet)
        self._arrivals.append((peer, packet))
        self._sizes[peer] = self._sizes.get(peer, 0) + len(packet)
        self._bytes += len(packet)
        self._packets += 1
        while self._sizes.get(peer, 0) > self._per_peer:
            dropped.append((peer, self._pop(peer)))
        while self._bytes > self._total or self._packets > STAGED_PACKETS_TOTAL:
            owner, oldest = self._arrivals.popleft()
            if self._queues.get(owner) and self._queues[owner][0] is oldest:
                dropped.append((owner, self._pop(owner)))
        self._forget_departed()
        return dropped

    def take(self, peer: int) -> list[bytes]:
        """Return and forget what is staged for *peer*, oldest first."""
        queue = self._queues.pop(peer, None)
        if queue is None:
            return []
        self._bytes -= self._sizes.pop(peer)
        self._packets -= len(queue)
        self._forget_departed()
        return list(queue)

    def __contains__(self, peer: int) -> bool:
        return peer in self._queues

    def __len__(self) -> int:
        return self._packets

    def _pop(self, peer: int) -> bytes:
        packet = self._queues[peer].popleft()
        self._sizes[peer] -= len(packet)
        self._bytes -= len(packet)
        self._packets -= 1
        if not self._queues[peer]:
            del self._queues[peer], self._sizes[peer]
        return packet

    def _forget_departed(self) -> None:
        """Release packets that are gone: of all when nothing is staged, otherwise when they are more than half."""
        if self._packets and len(self._arrivals) <= 2 * self._packets + 64:
            return
        staged = {id(packet) for queue in self._queues.values() for packet in queue}
        self._arrivals = deque(pair for pair in self._arrivals if id(pair[1]) in staged)
