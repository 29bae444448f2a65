"""Joining segments into super-packets, which the kernel takes with a virtio header that tells how to cut them.

As in ``split``, whole trains are examined at once: fields that must be equal, and fields that must continue, are
columns of a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from overlay.forwarding.offload.flow import (
    MODULUS,
    SEALED,
    Bytes2D,
    Flow,
    Framing,
    Words,
    flow_of,
    sum_le,
    swap,
    write_ipv4_checksum,
    write_partial_checksum,
)
from overlay.forwarding.offload.split import DOWN_BYTES, LAYOUT_ROWS, LAYOUTS, UP_BYTES
from overlay.wire.ip import MAXIMUM_IP, PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.partial import UDP_CSUM_OFFSET
from overlay.wire.tcp import ACK, ECE, PSH
from overlay.wire.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VIRTIO_HEADER,
    VIRTIO_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from overlay.forwarding.underlay.received import Received

# Ours
MAXIMUM_JOINED = (
    64  # in one write: the kernel takes 1024 buffers, but joining many tiny segments gains nothing
)


@dataclass(frozen=True, slots=True)
class Run:
    """Rows *first* to *first + count - 1* make one super-packet; one row stands alone."""

    first: int
    count: int


_SHAPE = {4: [0, 6, 7, 9], 6: [0, 6]}
"""The bytes that say where the fields of a packet are: version and header length, fragment, protocol."""
_MASKS: dict[tuple[Flow, bool], Bytes2D] = {}


def _mask(flow: Flow, *, is_strict: bool = False) -> Bytes2D:
    """Return which header bits must be equal in segments that are joined; *is_strict*: in those before the last."""
    mask = _MASKS.get((flow, is_strict))
    if mask is None:
        if len(_MASKS) >= LAYOUTS:
            _MASKS.clear()
        mask = np.full(flow.size, 0xFF, dtype=np.uint8)
        length = slice(2, 4) if flow.version == 4 else slice(4, 6)
        mask[length] = 0xFF * is_strict
        if flow.version == 4:
            mask[4:6] = 0  # ID
            mask[10:12] = 0
        if flow.protocol == PROTOCOL_TCP:
            mask[flow.l4 + 4 : flow.l4 + 8] = 0  # sequence number
            mask[flow.l4 + 13] = 0xFF if is_strict else 0xFF ^ PSH
            mask[flow.l4 + 16 : flow.l4 + 18] = 0
        else:
            mask[flow.l4 + 4 : flow.l4 + 6] = 0xFF * is_strict
            mask[flow.l4 + 6 : flow.l4 + 8] = 0
        _MASKS[flow, is_strict] = mask
    return mask


class _Geometry:
    """Rows of one size for one kind of flow: where their fields are in the buffer, and what is to be equal in them."""

    __slots__ = (
        "checks", "difference", "first", "heads", "identifiers", "ip_checks", "mask", "nothing", "numbers",
        "payloads", "segment", "sequences", "steps", "words",
    )  # fmt: skip

    def __init__(self, rows: Rows, flow: Flow) -> None:
        count, stride, before, l4 = rows.count, rows.stride, rows.before, flow.l4
        table = rows.array[: count * stride].reshape(count, stride)
        heads = self.heads = table[:, before : before + flow.size]
        self.first = heads[0]
        self.mask = np.repeat(_mask(flow, is_strict=True)[None], count, axis=0)
        self.mask[-1] = _mask(flow)
        self.difference, self.nothing = np.empty_like(self.mask), bytes(self.mask.size)
        self.identifiers, self.ip_checks = heads[:, 4:6], heads[:, 10:12]
        self.sequences = heads[:, l4 + 4 : l4 + 8]
        self.checks = heads[:, l4 + 6 : l4 + 8]  # UDP's
        words = table[:, before + l4 : stride // 2 * 2 - rows.tag // 2 * 2]
        self.words = words.view("<u2")
        self.numbers = np.arange(count, dtype=np.uint32)
        self.segment, self.steps = 0, self.numbers
        self.payloads: list[memoryview] = []

    def cut(self, rows: Rows, flow: Flow, segment: int) -> None:
        """Use payloads of *segment* bytes."""
        if segment != self.segment:
            self.segment, self.steps = segment, self.numbers * np.uint32(segment)
            start = rows.before + flow.size
            starts = range(start, start + rows.count * rows.stride, rows.stride)
            self.payloads = [rows.view[at : at + segment] for at in starts]


class Geometries:
    """The geometries that came in one buffer, as far as they are remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, Flow], _Geometry] = {}
        self._rows = 0

    def of(self, rows: Rows, flow: Flow) -> _Geometry:
        """Return that of *rows*, which always lie in the same buffer and have tags of one size."""
        geometry = self._known.get((rows.stride, rows.count, rows.before, flow))
        if geometry is None:
            if len(self._known) >= LAYOUTS or self._rows + rows.count > LAYOUT_ROWS:
                self._known.clear()
                self._rows = 0
            self._rows += rows.count
            geometry = _Geometry(rows, flow)
            self._known[rows.stride, rows.count, rows.before, flow] = geometry
        return geometry


class Rows:
    """Opened datagrams of one receive: row i begins at i * *stride* of *array*, its packet after the framing's header.

    All rows are *stride* long but the last, which ends after *last* bytes; the array goes on behind it.
    """

    __slots__ = ("array", "before", "count", "geometries", "last", "stride", "tag", "view")

    def __init__(
        self,
        array: Bytes2D,
        view: memoryview,
        stride: int,
        count: int,
        last: int,
        framing: Framing = SEALED,
        geometries: Geometries | None = None,
    ) -> None:
        """*geometries* are those of *array* and of the framing's tag."""
        self.array, self.view, self.stride, self.count, self.last = array, view, stride, count, last
        self.before, self.tag = framing.header, framing.tag
        self.geometries = geometries or Geometries()

    @classmethod
    def of(cls, received: Received, framing: Framing, geometries: Geometries) -> Self:
        """Return the rows of *received*."""
        size, stride = received.size, received.stride
        count = -(-size // stride)
        last = size - (count - 1) * stride
        return cls(received.array, received.view, stride, count, last, framing, geometries)

    def plaintext(self, row: int) -> memoryview:
        """Return the opened payload of *row*, padding included."""
        at = row * self.stride
        size = self.last if row == self.count - 1 else self.stride
        return self.view[at + self.before : at + size - self.tag]

    def runs(self, udp: bool) -> list[Run] | None:
        """Return how the rows can be joined, in order; None if it is not worthwhile or not possible to tell.

        Two segments are joined only if a TCP or UDP receiver cannot tell (``datapath.md``: equal addresses, ports,
        acknowledgement, window, options, TOS, hop limit, flags; contiguous numbers; equal sizes except for the last)
        and if every checksum is right, for the kernel vouches for a joined packet.  *udp* tells whether this kernel
        takes joined UDP.
        """
        stride, count, array = self.stride, self.count, self.array
        first = self.plaintext(0)
        if count < 2 or stride & 1 or len(first) < 28:
            return None
        flow = flow_of(first)
        before, overhead = self.before, self.before + self.tag
        if flow is None or stride - overhead < flow.size or (flow.protocol == PROTOCOL_UDP and not udp):
            return None
        length = _length(first)
        if length <= flow.size:
            return None
        end = (count - 1) * stride + self.last - self.tag
        array[end : count * stride] = 0
        tail = self.plaintext(count - 1)
        if len(tail) > flow.size and self._is_one_run(flow, length, _length(tail)):
            return list(_cut_evenly(count, flow.size, length - flow.size, _length(tail) - flow.size))
        table = array[: count * stride].reshape(count, stride)
        words = array[: count * stride].view("<u2").reshape(count, stride // 2)
        heads = table[:, before : before + flow.size]
        l4 = flow.l4
        if flow.version == 4:
            lengths = heads[:, 2:4].view(">u2")[:, 0].astype(np.int64)
        else:
            lengths = heads[:, 4:6].view(">u2")[:, 0].astype(np.int64) + 40
        payloads = lengths - flow.size
        room = stride - overhead
        good = (payloads > 0) & (lengths <= room)
        good[-1] &= int(lengths[-1]) <= self.last - overhead
        shape = _SHAPE[flow.version] if flow.protocol == PROTOCOL_UDP else [*_SHAPE[flow.version], l4 + 12]
        good &= (heads[:, shape] == heads[0, shape]).all(axis=1)  # the same columns mean the same fields
        good &= self._checksums(words, heads, flow, lengths)
        joined = good[1:] & good[:-1]
        joined &= ~(((heads[1:] ^ heads[:-1]) & _mask(flow)).any(axis=1))
        joined &= payloads[1:] <= payloads[:-1]
        if flow.version == 4:
            identifiers = heads[:, 4:6].view(">u2")[:, 0]
            joined &= (identifiers[1:] - identifiers[:-1]) == 1
        if flow.protocol == PROTOCOL_TCP:
            numbers = heads[:, l4 + 4 : l4 + 8].view(">u4")[:, 0].astype(np.uint32)
            joined &= (numbers[1:] - numbers[:-1]) == payloads[:-1]
            flags = heads[:, l4 + 13]
            joined &= (flags[1:] & ~np.uint8(PSH | ECE)) == ACK
            joined &= (flags[:-1] & ~np.uint8(ECE)) == ACK
        return self._cut(joined, payloads, flow)

    def _is_one_run(self, flow: Flow, length: int, last: int) -> bool:
        """Return whether all rows are one run: the common case, because a sender's super-packet becomes one.

        It asks the same as the general way, of all rows at once and against the first; only the last row, of *last*
        bytes where the others have *length*, may be shorter and carry PSH.  Numbers that wrap around are for the
        general way.
        """
        version, protocol, l4, size = flow
        count, segment = self.count, length - size
        overhead = self.before + self.tag
        if not size < last <= length <= self.stride - overhead or last > self.last - overhead:
            return False
        geometry = self.geometries.of(self, flow)
        difference = np.bitwise_xor(geometry.heads, geometry.first, out=geometry.difference)
        if np.bitwise_and(difference, geometry.mask, out=difference).tobytes() != geometry.nothing:
            return False
        geometry.cut(self, flow, segment)
        first, end = self.plaintext(0), self.plaintext(count - 1)
        if protocol == PROTOCOL_TCP:
            number = int.from_bytes(first[l4 + 4 : l4 + 8], "big")
            expected = (geometry.steps + np.uint32(number)).astype(">u4")
            if first[l4 + 13] & ~ECE != ACK or geometry.sequences.tobytes() != expected.tobytes():
                return False
        else:
            told = first[l4 + 4] << 8 | first[l4 + 5], end[l4 + 4] << 8 | end[l4 + 5]
            if told != (length - l4, last - l4) or not geometry.checks.any(axis=1).all():
                return False  # or there is no checksum to vouch for
        if version == 4 and not self._are_numbered(geometry, first[:l4], end[:l4]):
            return False
        sums = np.add.reduce(geometry.words, axis=1, dtype=np.uint32) % MODULUS
        addresses = first[12:20] if version == 4 else first[8:40]
        pseudo = sum_le(addresses) + swap(protocol)
        found = sums.tolist()
        right_last, right = (-(pseudo + swap(each - l4)) % 0xFFFF for each in (last, length))
        return bool(found.pop() == right_last and found.count(right) == count - 1)

    def _are_numbered(self, geometry: _Geometry, first: memoryview, last: memoryview) -> bool:
        """Return whether IPv4 IDs go up by one from *first* to *last*, and the checksums of all headers are right.

        What is equal except for the ID has a checksum that goes down by one as that goes up; only the last header may
        have another length.
        """
        identifier, check = first[4] << 8 | first[5], first[10] << 8 | first[11]
        if identifier + self.count > 0x10000 or check < self.count:
            return False
        if sum_le(first) != 0xFFFF or sum_le(last) != 0xFFFF:
            return False
        size, up, down = 2 * self.count, 2 * identifier, 2 * (0xFFFF - check)
        return (
            geometry.identifiers.tobytes() == UP_BYTES[up : up + size]
            and geometry.ip_checks.tobytes()[:-2] == DOWN_BYTES[down : down + size - 2]
        )

    def _checksums(self, words: Words, heads: Bytes2D, flow: Flow, lengths: Words) -> Words:
        """Return for each row whether its IPv4 header's and its L4 checksum hold."""
        start, end = (self.before + flow.l4) // 2, words.shape[1] - self.tag // 2
        sums = np.add.reduce(words[:, start:end], axis=1, dtype=np.uint32)
        l4_lengths = lengths - flow.l4
        sums += (((l4_lengths & 0xFF) << 8) | (l4_lengths >> 8)).astype(np.uint32)
        first, stop = (12, 20) if flow.version == 4 else (8, 40)
        addresses = words[:, (self.before + first) // 2 : (self.before + stop) // 2]
        sums += np.add.reduce(addresses, axis=1, dtype=np.uint32) + np.uint32(swap(flow.protocol))
        holds: Words = sums % MODULUS == 0
        if flow.version == 4:
            header = words[:, self.before // 2 : (self.before + flow.l4) // 2]
            holds &= np.add.reduce(header, axis=1, dtype=np.uint32) % MODULUS == 0
        if flow.protocol == PROTOCOL_UDP:
            at = flow.l4 + UDP_CSUM_OFFSET
            holds &= heads[:, at : at + 2].any(axis=1)  # zero says that there is none
            holds &= heads[:, flow.l4 + 4 : flow.l4 + 6].view(">u2")[:, 0] == l4_lengths
        return holds

    @staticmethod
    def _cut(joined: Words, payloads: Words, flow: Flow) -> list[Run]:
        """Return the runs: all segments of one are of the size of its first, except for the last."""
        count = len(payloads)
        runs: list[Run] = []
        follows, sizes = joined.tolist(), payloads.tolist()
        start, total = 0, sizes[0]
        for row in range(1, count):
            size = sizes[start]
            fits = flow.size + total + sizes[row] <= MAXIMUM_IP and row - start < MAXIMUM_JOINED
            if follows[row - 1] and sizes[row - 1] == size and fits:
                total += sizes[row]
                continue
            runs.append(Run(start, row - start))
            start, total = row, sizes[row]
        runs.append(Run(start, count - start))
        return runs

    def super_packet(self, run: Run, link: bytes = b"") -> list[memoryview | bytes]:
        """Return the buffers whose concatenation is a virtio header and the joined packet of *run* (2 rows or more).

        With *link*, the header of a frame, that stands before the packet.  The checksum is left to the kernel: the
        field holds the folded sum of the pseudo header, as it expects.
        """
        first = self.plaintext(run.first)
        flow = flow_of(first)
        assert flow is not None
        length = _length(first)
        segment = length - flow.size
        last_row = run.first + run.count - 1
        last = self.plaintext(last_row)
        last_size = _length(last) - flow.size
        payload = segment * (run.count - 1) + last_size
        header = bytearray(first[: flow.size])
        l4, size = flow.l4, flow.size + payload
        if flow.version == 4:
            header[2:4] = size.to_bytes(2, "big")
            write_ipv4_checksum(header)
            kind = GSO_TCPV4
        else:
            header[4:6] = (size - 40).to_bytes(2, "big")
            kind = GSO_TCPV6
        if flow.protocol == PROTOCOL_TCP:
            header[l4 + 13] |= last[l4 + 13] & PSH
        else:
            kind = GSO_UDP_L4
            header[l4 + 4 : l4 + 6] = (size - l4).to_bytes(2, "big")
        field = write_partial_checksum(header, flow, size)
        before = len(link)
        virtio = VIRTIO_HEADER.pack(NEEDS_CSUM, kind, before + flow.size, segment, before + l4, field)
        assert len(virtio) == VIRTIO_SIZE
        geometry = self.geometries.of(self, flow)
        geometry.cut(self, flow, segment)
        payloads = geometry.payloads[run.first : last_row]
        return [virtio + link + header, *payloads, last[flow.size : flow.size + last_size]]


def _cut_evenly(count: int, header: int, segment: int, last: int) -> Iterator[Run]:
    """Yield the runs of *count* rows that go on, with *segment* bytes behind a *header*, and *last* in the last."""
    most = max(1, min(MAXIMUM_JOINED, (MAXIMUM_IP - header) // segment))
    at = 0
    while at < count:
        rows = min(most, count - at)
        if at + rows == count - 1 and rows < MAXIMUM_JOINED and header + rows * segment + last <= MAXIMUM_IP:
            rows += 1  # for it is shorter
        yield Run(at, rows)
        at += rows


def _length(packet: memoryview) -> int:
    if packet[0] >> 4 == 4:
        return packet[2] << 8 | packet[3]
    return 40 + (packet[4] << 8 | packet[5])
