"""Splitting super-packets into segments.

The kernel hands over up to 64 KiB of one flow as a single packet whose virtio header tells how to cut it.  That runs
here on whole trains with numpy: a header field is a column, a checksum a row sum, so that the cost is that of a dozen
array operations for 45 segments rather than of 45 packets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from overlay.errors import PacketError
from overlay.forwarding.offload.flow import (
    HEADER_SIZE,
    SEALED,
    Flow,
    Framing,
    check_ipv4,
    complement,
    flow_behind_extensions,
    flow_of,
    sum_le,
    swap,
)
from overlay.wire.ip import PROTOCOL_TCP, PROTOCOL_UDP
from overlay.wire.messages import TAG_SIZE, TYPE_TRANSPORT
from overlay.wire.partial import TCP_CSUM_OFFSET, UDP_CSUM_OFFSET
from overlay.wire.tcp import CWR, FIN, PSH
from overlay.wire.virtio import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
)

# Ours
MAXIMUM_TRAIN_BYTES = 65507 - 7  # one UDP send takes 65507; a multiple of 4 keeps rows aligned
MAXIMUM_TRAIN_COUNT = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
BUFFER_BYTES = 256 * 1024  # a whole super-packet of TCP's smallest segments (48 bytes) with our overhead
LAYOUTS = 256  # geometries remembered before starting over; a busy host sees a handful
LAYOUT_ROWS = 16_384  # rows of all of them: each costs some 800 bytes of views

# All numbers of 16 bits, big endian, twice, and the other way round: IPv4 IDs and checksums of trains are slices of
# them.
_UP = np.arange(1 << 17).astype(">u2")
_DOWN = _UP[:0x10000][::-1].copy()
UP_BYTES, DOWN_BYTES = _UP.tobytes(), _DOWN.tobytes()


class Train:
    """The segments of one super-packet as rows of a buffer, each with its framing before and behind.

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
        # At least one: a datagram too big for any send is refused there.
        limit = min(MAXIMUM_TRAIN_COUNT, MAXIMUM_TRAIN_BYTES // self.size) or 1
        sends = -(-self.count // limit)
        cuts = [self.count * part // sends for part in range(sends + 1)]
        if self.stride != self.size:
            return [self.full[start:stop] for start, stop in pairwise(cuts)]
        end = (self.count - 1) * self.stride + len(self.full[-1])
        return [[self.view[a * self.stride : min(b * self.stride, end)]] for a, b in pairwise(cuts)]


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
        flow = flow_of(packet) or flow_behind_extensions(packet, kind, csum_start)
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
            train.rows[:, before + train.plain_size] = 0  # the half word that the sums are computed with
        if version == 4:
            self._number_ipv4(columns, head, packet[4] << 8 | packet[5])
        if protocol == PROTOCOL_TCP:
            number = int.from_bytes(packet[l4 + 4 : l4 + 8], "big")
            np.add(columns.steps, np.uint32(number), out=columns.sequences)
        self._end(train, flow, flags, last)
        sums = np.add.reduce(train.l4_words, axis=1, dtype=np.uint32)
        if version == 6 and l4 > 40:
            # An extension header may contain the address that counts: the kernel's sum covers it, and the whole length.
            pseudo = int.from_bytes(packet[field : field + 2], "little") + 0xFFFF - swap(len(packet) - l4)
        else:
            pseudo = sum_le(packet[12:20] if version == 4 else packet[8:40]) + swap(protocol)
        sums += np.uint32(pseudo + swap(length - l4))
        if last < segment:
            sums[-1] += np.uint32(0x1FFFE - swap(length - l4) + swap(header + last - l4))
        checks = complement(sums)
        if protocol == PROTOCOL_UDP:
            checks[checks == 0] = 0xFFFF  # RFC 768: zero would mean no checksum
        columns.checks[:] = checks

    @staticmethod
    def _number_ipv4(columns: _Columns, head: bytearray, identifier: int) -> None:
        """Write ID and header checksum of every row; *head* has everything else.

        As long as neither wraps around, the one goes up by one as the other goes down.
        """
        count = len(columns.steps)
        columns.identifiers[:] = _UP[identifier : identifier + count]
        head[4:6] = identifier.to_bytes(2, "big")
        check = check_ipv4(head)
        if check >= count and identifier + count <= 0x10000:
            columns.ip_checks[:] = _DOWN[0xFFFF - check : 0xFFFF - check + count]
            return
        head[4:6] = b"\0\0"
        constant = check_ipv4(head) ^ 0xFFFF
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
            view[at + 10 : at + 12] = check_ipv4(view[at : at + l4]).to_bytes(2, "big")
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
    """Cuts super-packets into unencrypted payloads, with *header* bytes before each packet."""

    def __init__(self, mtu: int, header: int) -> None:
        super().__init__(mtu)
        self._framing = Framing(header, 0, pads=False)

    def _train(self, header: int, segment: int, count: int, l4: int) -> Train:
        return Train(self._buffer, self._framing, header, segment, count, self.mtu, l4)
