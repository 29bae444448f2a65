"""Splitting super-packets into segments and joining segments into super-packets.

The kernel hands over up to 64 KiB of one flow as a single packet whose virtio header tells how to cut it, and takes
such packets back.  Both directions run here on whole trains with numpy: a header field is a column, a checksum a
row sum, so that the cost is that of a dozen array operations for 45 segments rather than of 45 packets.

One's complement sums do not depend on the byte order they are taken in (RFC 1071 section 2 B), so sums here are of
little-endian words and are stored as such; every other number in a header is big endian.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from overlay.errors import PacketError
from overlay.wire.ip import MAXIMUM_IP, PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.messages import PADDING, TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT
from overlay.wire.partial import TCP_CSUM_OFFSET, UDP_CSUM_OFFSET
from overlay.wire.tcp import ACK, CWR, ECE, FIN, PSH, TCP_HEADER_SIZE
from overlay.wire.virtio import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VIRTIO_HEADER,
    VIRTIO_SIZE,
)

# Specification
HEADER_SIZE = TRANSPORT_HEADER.size  # 16
OVERHEAD = HEADER_SIZE + TAG_SIZE  # 32
UDP_HEADER_SIZE = 8

# Ours
MAXIMUM_TRAIN_BYTES = 65507 - 7  # one UDP send takes 65507; a multiple of 4 keeps rows aligned
MAXIMUM_TRAIN_COUNT = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
BUFFER_BYTES = 256 * 1024  # a whole super-packet of TCP's smallest segments (48 bytes) with our overhead
MAXIMUM_JOINED = (
    64  # in one write: the kernel takes 1024 buffers, and its time for many tiny segments is no gain
)
LAYOUTS = 256  # geometries remembered before starting over; a busy host sees a handful
LAYOUT_ROWS = 16_384  # rows of all of them: each costs some 800 bytes of views

# All numbers of 16 bits, big endian, twice, and the other way round: IPv4 IDs and checksums of trains are slices of them.
_UP = np.arange(1 << 17).astype(">u2")
_DOWN = _UP[:0x10000][::-1].copy()
_UP_BYTES, _DOWN_BYTES = _UP.tobytes(), _DOWN.tobytes()

MODULUS = np.uint32(0xFFFF)  # a one's complement sum is right where it is 0 modulo this

Bytes2D: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[Any]


def padded(length: int, mtu: int) -> int:
    """Return the plaintext length for a packet of *length* bytes.

    A multiple of 16, unless that would be longer than *mtu*: then the packet goes as it is.  The kernel may have
    sent it under a route whose MTU is smaller than the device's, and what fitted must still fit.
    """
    full = -(-length // PADDING) * PADDING
    return full if full <= mtu else length


def complement(sums: Words) -> Words:
    """Return the checksums for one's complement *sums*, which are not folded and not 0.

    2**16 is 1 modulo 0xFFFF, so one remainder folds.  2**32 - 1 is 0 modulo it: the sum's bits inverted are its
    negative.  0 and 0xFFFF are the same number, and what is complemented is the latter.
    """
    return ~sums % MODULUS


def _fold_scalar(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _swap(value: int) -> int:
    return (value & 0xFF) << 8 | value >> 8


def _sum_le(data: memoryview | bytes | bytearray) -> int:
    """Return the sum of *data*, of even length, as little-endian words, folded."""
    number = int.from_bytes(data, "little")
    return number % 0xFFFF or (0xFFFF if number else 0)


class Framing(NamedTuple):
    """What stands around a packet in a datagram: bytes before it, bytes behind it, and whether zeros fill it up.

    The last *inner* bytes of those before it are sealed with it.
    """

    header: int  # an even number
    tag: int
    pads: bool
    inner: int = 0  # likewise

    def plain_size(self, length: int, mtu: int) -> int:
        """Return what a packet of *length* bytes takes between header and tag."""
        return padded(self.inner + length, mtu) - self.inner if self.pads else length


SEALED = Framing(HEADER_SIZE, TAG_SIZE, pads=True)


class Flow(NamedTuple):
    """Where the headers of a TCP or UDP packet are: offsets and sizes in bytes."""

    version: int
    protocol: int
    l4: int  # start of the TCP or UDP header
    size: int  # of all headers


def flow_of(packet: memoryview | bytes) -> Flow | None:
    """Return the header positions of a whole, unfragmented TCP or UDP packet; None for any other."""
    version = packet[0] >> 4
    if version == 4:
        l4, protocol = (packet[0] & 15) * 4, packet[9]
        if packet[6] & 0x3F or packet[7] or l4 < 20:
            return None
    elif version == 6:
        l4, protocol = 40, packet[6]
    else:
        return None
    if protocol == PROTOCOL_TCP and len(packet) >= l4 + TCP_HEADER_SIZE:
        size = l4 + (packet[l4 + 12] >> 4) * 4
        if l4 + TCP_HEADER_SIZE <= size <= len(packet):
            return Flow(version, protocol, l4, size)
    elif protocol == PROTOCOL_UDP and len(packet) >= l4 + UDP_HEADER_SIZE:
        return Flow(version, protocol, l4, l4 + UDP_HEADER_SIZE)
    return None


def _flow_behind_extensions(packet: memoryview, gso_type: int, l4: int) -> Flow | None:
    """Return the header positions of an IPv6 super-packet with extension headers, whose kernel says where TCP or UDP begins."""
    protocol = PROTOCOL_TCP if gso_type == GSO_TCPV6 else PROTOCOL_UDP
    size = l4 + UDP_HEADER_SIZE
    if packet[0] >> 4 != 6 or l4 <= 40 or l4 & 1 or len(packet) < size:
        return None
    if protocol == PROTOCOL_TCP:
        if len(packet) < l4 + TCP_HEADER_SIZE:
            return None
        size = l4 + (packet[l4 + 12] >> 4) * 4
        if not l4 + TCP_HEADER_SIZE <= size <= len(packet):
            return None
    return Flow(6, protocol, l4, size)


def _check_ipv4(header: bytearray | memoryview) -> int:
    """Return the checksum of the IPv4 header that *header* begins with; its field is zero."""
    return _swap(_sum_le(header[: (header[0] & 15) * 4]) ^ 0xFFFF)


def write_ipv4_checksum(header: bytearray) -> None:
    """Make the IPv4 header that *header* begins with right."""
    header[10:12] = b"\0\0"
    header[10:12] = _check_ipv4(header).to_bytes(2, "big")


def may_go_on(packet: memoryview) -> bool:
    """Return whether what follows *packet*, the last of a receive, may be joined with it."""
    if len(packet) < 74:  # the longest IPv4 header, and the flags of TCP
        return False
    is_ipv4 = packet[0] >> 4 == 4
    if packet[9 if is_ipv4 else 6] != PROTOCOL_TCP:
        return True
    return not packet[((packet[0] & 15) * 4 if is_ipv4 else 40) + 13] & PSH


def write_partial_checksum(header: bytearray | memoryview, flow: Flow, size: int) -> int:
    """Write the sum of the pseudo header of a packet of *size* bytes where the kernel is to finish it.

    Returns the offset of the field in the TCP or UDP header, the ``csum_offset`` of a virtio header.
    """
    version, protocol, l4, _ = flow
    addresses = header[12:20] if version == 4 else header[8:40]
    partial = _fold_scalar(_sum_le(addresses) + _swap(protocol) + _swap(size - l4))
    offset = TCP_CSUM_OFFSET if protocol == PROTOCOL_TCP else UDP_CSUM_OFFSET
    header[l4 + offset : l4 + offset + 2] = partial.to_bytes(2, "little")
    return offset


class Train:
    """The segments of one super-packet as rows of a buffer, each with what its framing puts before and behind.

    Views are made once for a geometry and used for every train of it.  The last row alone varies in length: see
    ``finish``.
    """

    __slots__ = (
        "body", "count", "framing", "full", "header_size", "headers", "l4_words", "last_padding", "offsets", "padding",
        "plain_size", "rows", "segment", "size", "stride", "view",
    )  # fmt: skip

    def __init__(
        self,
        buffer: bytearray,
        framing: Framing,
        header_size: int,
        segment: int,
        count: int,
        mtu: int,
        l4: int,
    ) -> None:
        self.framing, before = framing, framing.header
        self.header_size, self.segment, self.count = header_size, segment, count
        self.plain_size = framing.plain_size(header_size + segment, mtu)
        self.size = before + self.plain_size + framing.tag
        self.stride = -(-self.size // 4) * 4
        if count * self.stride > len(buffer):
            raise PacketError("tun_gso")
        view = self.view = memoryview(buffer)
        array = np.frombuffer(buffer, dtype=np.uint8, count=count * self.stride)
        rows = self.rows = array.reshape(count, self.stride)
        start = before + header_size
        self.headers = rows[:, before:start]
        self.body = rows[: count - 1, start : start + segment]
        self.padding = rows[:, start + segment : before + self.plain_size]
        self.l4_words = array.view("<u2").reshape(count, self.stride // 2)[
            :, (before + l4) // 2 : (before + self.plain_size + 1) // 2
        ]
        self.last_padding = 0  # bytes behind the packet of the last row
        self.offsets = np.arange(count, dtype=np.uint32)
        starts = range(0, count * self.stride, self.stride)
        self.full = [view[at : at + self.size] for at in starts]

    def prefix(self, prefix: bytes) -> None:
        """Put *prefix* right before every packet."""
        if prefix:
            before = self.framing.header
            self.rows[:, before - len(prefix) : before] = np.frombuffer(prefix, np.uint8)

    def finish(self, last_plain: int) -> None:
        """Set the length of the last row's plaintext."""
        at, before = (self.count - 1) * self.stride, self.framing.header
        self.full[-1] = self.view[at : at + before + last_plain + self.framing.tag]

    def parts(self) -> list[list[memoryview]]:
        """Return the datagrams in as few sends as the kernel takes, of nearly equal counts."""
        # At least one: what is too big for any send, the send refuses.
        limit = min(MAXIMUM_TRAIN_COUNT, MAXIMUM_TRAIN_BYTES // self.size) or 1
        sends = -(-self.count // limit)
        marks = [self.count * part // sends for part in range(sends + 1)]
        if self.stride != self.size:
            return [self.full[start:stop] for start, stop in pairwise(marks)]
        end = (self.count - 1) * self.stride + len(self.full[-1])
        return [[self.view[a * self.stride : min(b * self.stride, end)]] for a, b in pairwise(marks)]


class SealedTrain(Train):
    """A train of transport messages.  ``sealed[i]`` is ``plain[i]`` with the tag: an AEAD may write over its input."""

    __slots__ = ("counters", "nonces", "plain", "sealed", "words")

    def __init__(
        self,
        buffer: bytearray,
        header_size: int,
        segment: int,
        count: int,
        mtu: int,
        l4: int,
        framing: Framing = SEALED,
    ) -> None:
        super().__init__(buffer, framing, header_size, segment, count, mtu, l4)
        rows, view = self.rows, self.view
        self.words = rows[:, :8].view("<u4")
        self.counters = rows[:, 8:16].view("<u8")[:, 0]
        starts = range(0, count * self.stride, self.stride)
        self.nonces = [view[at + 4 : at + 16] for at in starts]
        size = framing.inner + self.plain_size
        self.plain = [view[at + 16 : at + 16 + size] for at in starts]
        self.sealed = [view[at + 16 : at + 16 + size + TAG_SIZE] for at in starts]

    def number(self, counter: int) -> None:
        """Give the rows the counters from *counter* on.  The nonces lie over the headers: seal before address()."""
        self.words[:, 0] = TYPE_TRANSPORT
        self.words[:, 1] = 0
        np.add(self.offsets, np.uint64(counter), out=self.counters)

    def address(self, receiver_index: int) -> None:
        """Write the receiver index into every header, once the rows are sealed."""
        self.words[:, 1] = receiver_index

    def finish(self, last_plain: int) -> None:
        """Set the length of the last row's plaintext."""
        super().finish(last_plain)
        at, size = (self.count - 1) * self.stride, self.framing.inner + last_plain
        self.plain[-1] = self.view[at + 16 : at + 16 + size]
        self.sealed[-1] = self.view[at + 16 : at + 16 + size + TAG_SIZE]


class _Columns:
    """What differs from one header of a train to the next, for one kind of flow."""

    __slots__ = ("checks", "identifiers", "ip_checks", "sequences", "steps")

    def __init__(self, train: Train, flow: Flow) -> None:
        heads, l4 = train.headers, flow.l4
        check = l4 + (TCP_CSUM_OFFSET if flow.protocol == PROTOCOL_TCP else UDP_CSUM_OFFSET)
        self.identifiers = heads[:, 4:6].view(">u2")[:, 0]  # IPv4's, as its checksum
        self.ip_checks = heads[:, 10:12].view(">u2")[:, 0]
        self.sequences = heads[:, l4 + 4 : l4 + 8].view(">u4")[:, 0]  # TCP's
        self.checks = heads[:, check : check + 2].view("<u2")[:, 0]
        self.steps = train.offsets * np.uint32(train.segment)


T = TypeVar("T", bound=Train)


class _Splitter(ABC, Generic[T]):
    """Cuts super-packets into trains.  It owns the buffer: a train is good until the next split."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self._buffer = bytearray(BUFFER_BYTES)
        self._trains: dict[tuple[Flow, int, int], tuple[T, _Columns]] = {}  # by flow, segment and count
        self._rows = 0  # of all trains remembered

    @abstractmethod
    def _train(self, header: int, segment: int, count: int, l4: int) -> T:
        """Return a train of that geometry in our buffer."""

    def split(self, packet: memoryview, gso_type: int, segment: int, csum_start: int) -> T:
        """Return the segments of *packet* as the kernel's own segmentation would have made them.

        CWR stays on the first, FIN and PSH on the last; IPv4 IDs count up.  Raises PacketError ``tun_gso`` where
        the virtio header and the packet disagree.
        """
        kind = gso_type & ~GSO_ECN
        flow = flow_of(packet) or _flow_behind_extensions(packet, kind, csum_start)
        expected = {GSO_TCPV4: PROTOCOL_TCP, GSO_TCPV6: PROTOCOL_TCP, GSO_UDP_L4: PROTOCOL_UDP}.get(kind)
        if flow is None or flow.protocol != expected or flow.l4 != csum_start or not segment:
            raise PacketError("tun_gso")
        payload = len(packet) - flow.size
        if payload <= 0:
            raise PacketError("tun_gso")
        count = -(-payload // segment)
        found = self._trains.get((flow, segment, count))
        if found is None:
            train = self._train(flow.size, segment, count, flow.l4)
            if len(self._trains) >= LAYOUTS or self._rows + count > LAYOUT_ROWS:
                self._trains.clear()
                self._rows = 0
            found = self._trains[flow, segment, count] = train, _Columns(train, flow)
            self._rows += count
        train, columns = found
        self._fill(train, columns, packet, flow, payload)
        return train

    def _fill(self, train: T, columns: _Columns, packet: memoryview, flow: Flow, payload: int) -> None:
        version, protocol, l4, header = flow
        count, segment, before = train.count, train.segment, train.framing.header
        last = payload - (count - 1) * segment
        last_plain = train.framing.plain_size(header + last, self.mtu)
        train.last_padding = last_plain - header - last
        train.finish(last_plain)
        head = bytearray(packet[:header])
        length = header + segment
        if version == 4:
            head[2:4] = (length & 0xFFFF).to_bytes(2, "big")
            head[10:12] = b"\0\0"
        else:
            head[4:6] = (length - 40 & 0xFFFF).to_bytes(2, "big")
        if protocol == PROTOCOL_TCP:
            field, flags = l4 + TCP_CSUM_OFFSET, packet[l4 + 13]
            head[l4 + 13] = flags & ~(FIN | PSH | CWR)
        else:
            field, flags = l4 + UDP_CSUM_OFFSET, 0
            head[l4 + 4 : l4 + 6] = (length - l4 & 0xFFFF).to_bytes(2, "big")
        head[field : field + 2] = b"\0\0"
        train.headers[:] = np.frombuffer(head, np.uint8)
        source = np.frombuffer(packet, np.uint8)
        end = header + (count - 1) * segment
        train.body[:] = source[header:end].reshape(count - 1, segment)
        if train.padding.shape[1]:
            train.padding[:] = 0
        tail = train.rows[-1]
        tail[before + header : before + header + last] = source[end:]
        if last < segment:
            tail[before + header + last :] = 0
        if train.plain_size & 1:
            train.rows[:, before + train.plain_size] = 0  # the half word that the sums take in
        if version == 4:
            self._number_ipv4(columns, head, packet[4] << 8 | packet[5])
        if protocol == PROTOCOL_TCP:
            number = int.from_bytes(packet[l4 + 4 : l4 + 8], "big")
            np.add(columns.steps, np.uint32(number), out=columns.sequences)
        self._end(train, flow, flags, last)
        sums = np.add.reduce(train.l4_words, axis=1, dtype=np.uint32)
        if version == 6 and l4 > 40:
            # An extension header may hold the address that counts: the kernel's sum has it, and the whole length.
            pseudo = int.from_bytes(packet[field : field + 2], "little") + 0xFFFF - _swap(len(packet) - l4)
        else:
            pseudo = _sum_le(packet[12:20] if version == 4 else packet[8:40]) + _swap(protocol)
        sums += np.uint32(pseudo + _swap(length - l4))
        if last < segment:
            sums[-1] += np.uint32(0x1FFFE - _swap(length - l4) + _swap(header + last - l4))
        checks = complement(sums)
        if protocol == PROTOCOL_UDP:
            checks[checks == 0] = 0xFFFF  # RFC 768: zero would say that there is none
        columns.checks[:] = checks

    @staticmethod
    def _number_ipv4(columns: _Columns, head: bytearray, identifier: int) -> None:
        """Write ID and header checksum of every row; *head* has everything else.

        As long as neither wraps around, the one goes up by one as the other goes down.
        """
        count = len(columns.steps)
        columns.identifiers[:] = _UP[identifier : identifier + count]
        head[4:6] = identifier.to_bytes(2, "big")
        check = _check_ipv4(head)
        if check >= count and identifier + count <= 0x10000:
            columns.ip_checks[:] = _DOWN[0xFFFF - check : 0xFFFF - check + count]
            return
        head[4:6] = b"\0\0"
        constant = _check_ipv4(head) ^ 0xFFFF
        columns.ip_checks[:] = complement(columns.identifiers.astype(np.uint32) + np.uint32(constant))

    @staticmethod
    def _end(train: T, flow: Flow, flags: int, last: int) -> None:
        """Write what the first and the last row alone have: flags of TCP, and the lengths of a shorter segment."""
        version, protocol, l4, header = flow
        view, first = train.view, train.framing.header
        at = first + (train.count - 1) * train.stride
        if flags & CWR:
            view[first + l4 + 13] |= CWR
        if flags & (FIN | PSH):
            view[at + l4 + 13] |= flags & (FIN | PSH)
        if last == train.segment:
            return
        if version == 4:
            view[at + 2 : at + 4] = (header + last).to_bytes(2, "big")
            view[at + 10 : at + 12] = b"\0\0"
            view[at + 10 : at + 12] = _check_ipv4(view[at : at + l4]).to_bytes(2, "big")
        else:
            view[at + 4 : at + 6] = (header + last - 40).to_bytes(2, "big")
        if protocol == PROTOCOL_UDP:
            view[at + l4 + 4 : at + l4 + 6] = (header + last - l4).to_bytes(2, "big")


class Splitter(_Splitter[SealedTrain]):
    """Cuts super-packets into transport messages that are to be sealed, with *inner* bytes before each packet."""

    def __init__(self, mtu: int, inner: int = 0) -> None:
        super().__init__(mtu)
        self._framing = SEALED._replace(header=HEADER_SIZE + inner, inner=inner)

    def _train(self, header: int, segment: int, count: int, l4: int) -> SealedTrain:
        return SealedTrain(self._buffer, header, segment, count, self.mtu, l4, self._framing)


class ClearSplitter(_Splitter[Train]):
    """Cuts super-packets into payloads in the clear, with *header* bytes before each packet."""

    def __init__(self, mtu: int, header: int) -> None:
        super().__init__(mtu)
        self._framing = Framing(header, 0, pads=False)

    def _train(self, header: int, segment: int, count: int, l4: int) -> Train:
        return Train(self._buffer, self._framing, header, segment, count, self.mtu, l4)


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
        """Have payloads of *segment* bytes."""
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

    def plaintext(self, row: int) -> memoryview:
        """Return the opened payload of *row*, padding included."""
        at = row * self.stride
        size = self.last if row == self.count - 1 else self.stride
        return self.view[at + self.before : at + size - self.tag]

    def runs(self, udp: bool) -> list[Run] | None:
        """Return how the rows can be joined, in order; None if it is not worth or not possible to tell.

        Two segments are joined only if a TCP or UDP receiver cannot tell (``datapath.md``: equal addresses, ports,
        acknowledgement, window, options, TOS, hop limit, flags; contiguous numbers; equal sizes but for the last)
        and if every checksum is right, for the kernel vouches for a joined packet.  *udp* tells whether this
        kernel takes joined UDP.
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
            most = max(1, min(MAXIMUM_JOINED, (MAXIMUM_IP - flow.size) // (length - flow.size)))
            return [Run(at, min(most, count - at)) for at in range(0, count, most)]
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
        """Return whether all rows are one run: what a sender's super-packet becomes, and so the common case.

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
        pseudo = _sum_le(addresses) + _swap(protocol)
        found = sums.tolist()
        right_last, right = (-(pseudo + _swap(each - l4)) % 0xFFFF for each in (last, length))
        return bool(found.pop() == right_last and found.count(right) == count - 1)

    def _are_numbered(self, geometry: _Geometry, first: memoryview, last: memoryview) -> bool:
        """Return whether IPv4 IDs go up by one from *first* to *last*, and the checksums of all headers are right.

        What is equal but for the ID has a checksum that goes down by one as that goes up; only the last header may
        have another length.
        """
        identifier, check = first[4] << 8 | first[5], first[10] << 8 | first[11]
        if identifier + self.count > 0x10000 or check < self.count:
            return False
        if _sum_le(first) != 0xFFFF or _sum_le(last) != 0xFFFF:
            return False
        size, up, down = 2 * self.count, 2 * identifier, 2 * (0xFFFF - check)
        return (
            geometry.identifiers.tobytes() == _UP_BYTES[up : up + size]
            and geometry.ip_checks.tobytes()[:-2] == _DOWN_BYTES[down : down + size - 2]
        )

    def _checksums(self, words: Words, heads: Bytes2D, flow: Flow, lengths: Words) -> Words:
        """Return for each row whether its IPv4 header's and its L4 checksum hold."""
        start, end = (self.before + flow.l4) // 2, words.shape[1] - self.tag // 2
        sums = np.add.reduce(words[:, start:end], axis=1, dtype=np.uint32)
        l4_lengths = lengths - flow.l4
        sums += (((l4_lengths & 0xFF) << 8) | (l4_lengths >> 8)).astype(np.uint32)
        first, stop = (12, 20) if flow.version == 4 else (8, 40)
        addresses = words[:, (self.before + first) // 2 : (self.before + stop) // 2]
        sums += np.add.reduce(addresses, axis=1, dtype=np.uint32) + np.uint32(_swap(flow.protocol))
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
        """Return the runs: all segments of one are of the size of its first, but for the last."""
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

        With *link*, the header of a frame, that stands before the packet.  The checksum is left to the kernel: the field holds the folded sum of the pseudo header, as it expects.
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


def _length(packet: memoryview) -> int:
    if packet[0] >> 4 == 4:
        return packet[2] << 8 | packet[3]
    return 40 + (packet[4] << 8 | packet[5])
