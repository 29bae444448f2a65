"""From the wire to the tun, as bulk units: reassemble, open, and pass on.

The datagrams of a unit nearly always arrive in one receive, complete and in order; then the unit is opened without
examining each.  All others are reassembled fragment by fragment (``units``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from overlay.errors import PacketError
from overlay.forwarding.bulk.reassembly import Reassembly, WholeUnit, ends_of_runs
from overlay.forwarding.bulk.units import LEAD, open_unit
from overlay.wire.bulk import FRAGMENT_HEADER, FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT
from overlay.wire.ip import CE

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.forwarding.bulk.capability import Bulk
    from overlay.forwarding.bulk.reassembly import Partial, Place
    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.received import Received
    from overlay.forwarding.upcalls import Upcalls

# Ours
LAYOUTS = 256  # (count, datagram size) pairs remembered before starting over


class Delivery(Protocol):
    """What becomes of datagrams that are not fragments, and of opened units."""

    def take_one(self, received: Received, at: int, size: int) -> None:
        """Take one datagram, whatever it is."""

    def heard(self, keypair: Keypair[LivePeer], received: Received, size: int) -> None:
        """Note an authenticated receive of *size* bytes: the peer is there, and reachable at its source."""

    def deliver_unit(self, peer: LivePeer, unit: memoryview, most: int, ecn: int, now: float) -> None:
        """Write the packet in an opened unit, once every claim about it is verified."""


class Assembly(Protocol):
    """What keeps incomplete units: ``Reassembly``, or the compiled twin, each with partial units of its own."""

    def __len__(self) -> int: ...
    def place(
        self, keypair: Any, place: Place, count: int, cipher: int, now: float, *, is_at_endpoint: bool
    ) -> Any: ...
    def put(self, partial: Any, number: int, rows: Bytes2D, last: int) -> bool: ...
    def take(self, place: Place) -> tuple[memoryview, Any]: ...
    def forget_keypair(self, index: int) -> None: ...


class _UnitLayout:
    """A unit that arrives complete in one receive: where its headers and its pieces are, and where they go."""

    __slots__ = ("headers", "pieces", "target", "whole")

    def __init__(self, received: Bytes2D, unit: Bytes2D, count: int, stride: int) -> None:
        rows = received[: count * stride].reshape(count, stride)
        width = stride - FRAGMENT_HEADER_SIZE
        self.headers, self.pieces = rows[:, :FRAGMENT_HEADER_SIZE], rows[:, FRAGMENT_HEADER_SIZE:]
        self.whole = WholeUnit(count)
        self.target = unit[LEAD : LEAD + count * width].reshape(count, width)


class UnitInbound:
    """Takes fragments of bulk units."""

    def __init__(self, core: Upcalls, received: Received, delivery: Delivery) -> None:
        self._core, self._received, self._delivery = core, received, delivery
        self.unit = bytearray(LEAD + len(received.buffer))
        self.unit_view, self._unit_array = memoryview(self.unit), np.frombuffer(self.unit, dtype=np.uint8)
        self._layouts: dict[tuple[int, int], _UnitLayout] = {}
        self.reassembly: Assembly = Reassembly(self._lost)

    def forget_keypair(self, index: int) -> None:
        """Forget incomplete units under a keypair that is gone."""
        self.reassembly.forget_keypair(index)

    def take(self, received: Received, at: int, size: int, stride: int) -> None:
        """Take datagrams that begin at *at* and are of *stride* bytes except for the last, the first a fragment."""
        buffer = received.buffer
        count = -(-size // stride)
        last = size - (count - 1) * stride
        if last <= FRAGMENT_HEADER_SIZE:
            end = at + size - last
            if buffer[end] == TYPE_FRAGMENT:
                self._core.drops.add("fragment_short", 1, None, received.view[end : end + last])
            else:
                self._delivery.take_one(received, end, last)
            count, last = count - 1, stride
        if not count:
            return
        if not at and buffer[2] == count and not self.reassembly and self._takes_whole(count, stride):
            self._take_whole(received, count, stride, last)
            return
        table = received.array[at : at + count * stride].reshape(count, stride)
        if count == 1:
            self._take_run(received, at, table, last)
            return
        first = 0
        for stop in ends_of_runs(table[:, :FRAGMENT_HEADER_SIZE].view("<u4")):
            start, size = at + first * stride, last if stop == count else stride
            if buffer[start] == TYPE_FRAGMENT:
                rows = table[first:stop, :size] if stop == first + 1 else table[first:stop]
                self._take_run(received, start, rows, size)
            else:
                self._delivery.take_one(received, start, size)
            first = stop

    def _takes_whole(self, count: int, stride: int) -> bool:
        """Return whether the *count* datagrams at the start of the buffer are one unit, all of it and in order."""
        layout = self._layouts.get((count, stride))
        if layout is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            layout = _UnitLayout(self._received.array, self._unit_array, count, stride)
            self._layouts[count, stride] = layout
        return not self._received.buffer[1] and layout.whole.are(layout.headers.tobytes())

    def _take_whole(self, received: Received, count: int, stride: int, last: int) -> None:
        """Take a unit for which _takes_whole() returned true; the last of its datagrams has *last* bytes."""
        _, _, _, cipher, index, counter = FRAGMENT_HEADER.unpack_from(received.buffer)
        keypair = self._core.by_index.get(index)
        if keypair is None:
            self._core.drops.add("unknown_index", count, None, received.view[:stride])
            return
        try:
            bulk, opener = self._check(keypair, cipher, counter, received.now)
        except PacketError as error:
            self._core.refused(keypair.peer, error.reason, count, None, received.view[:stride])
            return
        layout = self._layouts[count, stride]
        layout.target[:] = layout.pieces
        end = LEAD + (count - 1) * (stride - FRAGMENT_HEADER_SIZE) + last - FRAGMENT_HEADER_SIZE
        try:
            unit = open_unit(opener, counter, self.unit_view[:end])
        except PacketError as error:
            self._core.refused(keypair.peer, error.reason)
            return
        bulk.window.mark(counter)
        bulk.delivered(counter, count, received.now)
        size = (count - 1) * stride + last
        self._take_opened(received, keypair, bulk, unit, size, received.arrival.ecn)

    @staticmethod
    def _check(
        keypair: Keypair[LivePeer], cipher: int, counter: int, now: float
    ) -> tuple[Bulk, Callable[..., int]]:
        """Return the opener for a unit that may be accepted.  Raises PacketError."""
        if now >= keypair.reject_at:
            raise PacketError("keypair_expired")
        bulk = keypair.bulk
        opener = bulk.ciphers.opener(cipher) if bulk is not None and bulk.has_said_hello else None
        if bulk is None or opener is None:
            raise PacketError("unit_unexpected")
        if not bulk.window.check(counter):
            raise PacketError("replay")
        return bulk, opener

    def _take_run(self, received: Received, at: int, table: Bytes2D, last: int) -> None:
        """Take consecutive fragments of one unit, the rows of *table*, the last of which has *last* bytes."""
        core, count = self._core, len(table)
        _, number, total, cipher, index, counter = FRAGMENT_HEADER.unpack_from(received.buffer, at)
        keypair = core.by_index.get(index)
        if keypair is None:
            core.drops.add("unknown_index", count, None, table[0].data)
            return
        peer = keypair.peer
        refused = count
        try:
            if number + count > total:
                raise PacketError("fragment_header")
            bulk, opener = self._check(keypair, cipher, counter, received.now)
            place = (index, counter, received.source)
            reassembly = self.reassembly
            is_there = received.source == peer.endpoint or keypair.session is not None
            partial = reassembly.place(keypair, place, total, cipher, received.now, is_at_endpoint=is_there)
            partial.is_marked |= received.arrival.ecn == CE
            if not reassembly.put(
                partial, number, table[:, FRAGMENT_HEADER_SIZE:], last - FRAGMENT_HEADER_SIZE
            ):
                return
            refused = 1
            sealed, partial = reassembly.take(place)
            unit = open_unit(opener, counter, sealed)
            if not bulk.window.accept(counter):
                raise PacketError("replay")
        except PacketError as error:
            core.refused(peer, error.reason, refused, None, table[0].data)
            return
        bulk.delivered(counter, total, received.now)
        ecn = CE if partial.is_marked else received.arrival.ecn
        size = len(sealed) - LEAD + total * FRAGMENT_HEADER_SIZE
        self._take_opened(received, keypair, bulk, unit, size, ecn)

    def _take_opened(
        self,
        received: Received,
        keypair: Keypair[LivePeer],
        bulk: Bulk,
        unit: memoryview,
        size: int,
        ecn: int,
    ) -> None:
        """Take an authentic unit, whose datagrams had *size* bytes together."""
        peer = keypair.peer
        peer.traffic.rx_units += 1
        self._delivery.heard(keypair, received, size)
        self._core.liveness.unit_received(peer, keypair)
        self._delivery.deliver_unit(peer, unit, bulk.told_packet, ecn, received.now)

    @staticmethod
    def _lost(partial: Partial[Keypair[LivePeer]]) -> None:
        """Count a unit that was given up incomplete."""
        keypair = partial.keypair
        keypair.peer.drops.add("unit_incomplete")
        if keypair.bulk is not None and partial.is_at_endpoint:
            keypair.bulk.missing += partial.missing
