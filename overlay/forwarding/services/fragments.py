"""Fragments go where the first one of their packet went, for only that one has ports.

Later fragments that come before the first are held until it comes.  All is bounded: packets that are known, fragments
that are held of one packet and in all, and how long.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from overlay.reasons import Drops

T = TypeVar("T")

# Ours
LIFETIME = 30.0  # seconds; what hosts wait for the rest is 15 (Linux: 30) to 60
PACKETS = 4096  # known at a time, the oldest makes room
HELD = 16  # fragments of one packet
HELD_BYTES = 4 << 20  # of all


@dataclass(slots=True)
class _Packet(Generic[T]):
    began: float
    goes_to: T | None = None
    held: list[bytes] = field(default_factory=list)


class Fragments(Generic[T]):
    """Where packets go that arrive in fragments.  What is dropped is counted in *drops*."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._packets: OrderedDict[bytes, _Packet[T]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    def first(self, which: bytes, goes_to: T, now: float) -> list[bytes]:
        """Note that the first fragment of a packet goes to *goes_to*, and return those that waited for it."""
        packet = self._packet(which, now)
        packet.goes_to, held, packet.held = goes_to, packet.held, []
        self._bytes -= sum(map(len, held))
        return held

    def later(self, which: bytes, now: float) -> T | None:
        """Return where a packet goes, None if its first fragment has not come."""
        self._forget(now)
        packet = self._packets.get(which)
        return None if packet is None else packet.goes_to

    def hold(self, which: bytes, fragment: bytes, now: float) -> None:
        """Keep a fragment until the first of its packet comes; drop it if too many are kept."""
        packet = self._packet(which, now)
        if len(packet.held) >= HELD or self._bytes + len(fragment) > HELD_BYTES:
            self._drops.add("service_fragment", 1, fragment)
            return
        packet.held.append(fragment)
        self._bytes += len(fragment)

    def _packet(self, which: bytes, now: float) -> _Packet[T]:
        self._forget(now)
        packet = self._packets.get(which)
        if packet is None:
            if len(self._packets) >= PACKETS:
                self._drop_oldest()
            packet = self._packets[which] = _Packet(now)
        return packet

    def _forget(self, now: float) -> None:
        while self._packets and next(iter(self._packets.values())).began + LIFETIME < now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, packet = self._packets.popitem(last=False)
        if packet.held:
            self._bytes -= sum(map(len, packet.held))
            self._drops.add("service_fragment", len(packet.held), packet.held[0])
