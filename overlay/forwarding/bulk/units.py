"""Bulk units at work (``wire.bulk`` has the format): sealing and cutting, opening and reading.

One seal for a whole super-packet is what lets this program outrun those that seal packet by packet.  The price is
that a lost datagram costs its unit, so the size of units follows the loss that the receiver reports (``size``).
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from overlay.errors import PacketError
from overlay.forwarding import state
from overlay.forwarding.offload.flow import flow_of, write_ipv4_checksum, write_partial_checksum
from overlay.forwarding.offload.split import MAXIMUM_TRAIN_BYTES, MAXIMUM_TRAIN_COUNT
from overlay.session.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from overlay.wire.bulk import (
    AES_256_GCM,
    AES_BLOCK,
    AES_BLOCKS_PER_KEY,
    FRAGMENT_HEADER,
    FRAGMENT_HEADER_SIZE,
    MAXIMUM_FRAGMENTS,
    MAXIMUM_PACKET,
    MAXIMUM_SEALED,
    META,
    MINIMUM_SEGMENT,
    TYPE_FRAGMENT,
)
from overlay.wire.ip import PROTOCOL_TCP
from overlay.wire.messages import TAG_SIZE
from overlay.wire.tcp import CWR, FIN, PSH
from overlay.wire.virtio import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VIRTIO_HEADER,
    VIRTIO_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overlay.forwarding.offload.flow import Bytes2D, Flow

# Ours
LARGEST_DATAGRAM = 65535  # more than any unit has
LAYOUTS = 256  # geometries remembered before starting over
LEAD = VIRTIO_SIZE - META.size  # bytes before a reassembled unit, so that a virtio header has room
BLOCKS_PER_SUPER_PACKET = 2**13  # more than its units have, however it is cut
# Some seconds before the end at the highest rate: enough time for another keypair
REKEY_AFTER_BLOCKS = AES_BLOCKS_PER_KEY - 2**30
_NONCE_PREFIX = bytes(4)
_META_AND_ZERO = struct.Struct("<BBH").unpack_from
_STEPS = np.zeros((MAXIMUM_FRAGMENTS, 4), dtype=np.uint32)
_STEPS[:, 0] = np.arange(MAXIMUM_FRAGMENTS, dtype=np.uint32) << 8  # the fragment's number is the second byte


def make_aead(cipher: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    """Return the AEAD of a cipher's number."""
    return AESGCM(key) if cipher == AES_256_GCM else ChaCha20Poly1305(key)


class UnitKey(state.UnitKeyState):
    """The sending half of a keypair's units: the key, its counter, and how much it has sealed."""

    __slots__ = ("seal",)

    def __init__(self, cipher: int, key: bytes, receiver_index: int) -> None:
        self.cipher, self.receiver_index = cipher, receiver_index
        self.seal = make_aead(cipher, key).encrypt_into
        self._seals(cipher, key, self.seal)
        self.counter = self.blocks = 0

    @property
    def is_old(self) -> bool:
        """Whether the key has sealed so much that a new one should be requested."""
        if self.cipher == AES_256_GCM and self.blocks >= REKEY_AFTER_BLOCKS:
            return True
        return self.counter >= REKEY_AFTER_MESSAGES

    @property
    def is_spent(self) -> bool:
        """Whether the key has sealed as much as it may."""
        if self.cipher == AES_256_GCM and self.blocks >= AES_BLOCKS_PER_KEY - BLOCKS_PER_SUPER_PACKET:
            return True
        return self.counter >= REJECT_AFTER_MESSAGES - MAXIMUM_FRAGMENTS


def cut_points(count: int, limit: int) -> list[int]:
    """Return where a super-packet of *count* segments is cut into nearly equal parts of at most *limit*, 4 or more.

    Each part has two segments at least.
    """
    parts = -(-count // limit)
    return [count * part // parts for part in range(parts + 1)]


def portions(
    packet: memoryview, flow: Flow, gso_type: int, segment: int, cuts: list[int]
) -> Iterator[tuple[int, bytes, memoryview]]:
    """Yield (GSO type, headers, payload) of the super-packets that make *packet*, cut at these segments.

    CWR stays on the first, FIN and PSH on the last.
    """
    payload = packet[flow.size :]
    if len(cuts) == 2:
        yield gso_type, bytes(packet[: flow.size]), payload
        return
    l4 = flow.l4
    for first, stop in pairwise(cuts):
        piece = payload[first * segment : stop * segment]
        header = bytearray(packet[: flow.size])
        size = len(header) + len(piece)
        if flow.version == 4:
            header[2:4] = size.to_bytes(2, "big")
            header[4:6] = (((packet[4] << 8 | packet[5]) + first) & 0xFFFF).to_bytes(2, "big")
            write_ipv4_checksum(header)
        else:
            header[4:6] = (size - 40).to_bytes(2, "big")
        kind = gso_type
        if flow.protocol == PROTOCOL_TCP:
            number = int.from_bytes(packet[l4 + 4 : l4 + 8], "big") + first * segment
            header[l4 + 4 : l4 + 8] = (number & 0xFFFFFFFF).to_bytes(4, "big")
            if first:
                header[l4 + 13] &= ~CWR & 0xFF
                kind &= ~GSO_ECN
            if stop < cuts[-1]:
                header[l4 + 13] &= ~(FIN | PSH) & 0xFF
        else:
            header[l4 + 4 : l4 + 6] = (size - l4).to_bytes(2, "big")
        yield kind, bytes(header), piece


def segments_in(room: int, fragments: int, datagram_size: int, headers: int, segment: int) -> int:
    """Return how many segments a unit may have for a receiver that accepts *room* bytes sealed, in that
    many fragments.
    """
    room = min(room, min(fragments, MAXIMUM_FRAGMENTS) * (datagram_size - FRAGMENT_HEADER_SIZE))
    return (room - META.size - TAG_SIZE - headers) // segment


class _Layout:
    """The layout of a sealed unit of some size as *count* datagrams of *size* bytes: views, made once."""

    __slots__ = ("counters", "cuts", "headers", "pieces")

    def __init__(self, out: Bytes2D, count: int, size: int) -> None:
        rows = out[: count * size].reshape(count, size)
        self.pieces = rows[:, FRAGMENT_HEADER_SIZE:]
        self.headers = rows[:, :FRAGMENT_HEADER_SIZE].view("<u4")
        self.counters = rows[:, FRAGMENT_HEADER_SIZE - 8 : FRAGMENT_HEADER_SIZE].view("<u8")
        limit = min(MAXIMUM_TRAIN_COUNT, MAXIMUM_TRAIN_BYTES // size) or 1
        sends = -(-count // limit)
        self.cuts = [count * part // sends * size for part in range(sends + 1)]


class Cutter:
    """Seals super-packets and cuts them.  It owns the datagrams: those of a unit are valid until the next."""

    def __init__(self) -> None:
        self._plain = bytearray(MAXIMUM_SEALED + LARGEST_DATAGRAM)
        self._plain_view, self._plain_array = memoryview(self._plain), np.frombuffer(self._plain, np.uint8)
        # In one datagram a unit has no room, and in more than two there is less behind it
        out = bytearray(2 * LARGEST_DATAGRAM)
        self._out, self._out_view = np.frombuffer(out, np.uint8), memoryview(out)
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._written: tuple[_Layout, UnitKey] | None = None  # whose headers are in the datagrams now

    def cut(
        self,
        key: UnitKey,
        gso_type: int,
        segment: int,
        header: bytes,
        payload: memoryview,
        size: int,
        link: bytes = b"",
    ) -> list[memoryview]:
        """Return a sealed unit as the contents of one or two sends, datagrams of *size* bytes except for the last."""
        start = META.size + len(header)
        end = start + len(payload)
        META.pack_into(self._plain, 0, gso_type, segment)
        self._plain[META.size : start] = header
        self._plain_view[start:end] = payload
        end = append_link(self._plain, 0, end, link)
        return self.cut_in_place(key, self._plain_view, self._plain_array, 0, end, size)

    def cut_in_place(
        self, key: UnitKey, view: memoryview, array: Bytes2D, start: int, end: int, size: int
    ) -> list[memoryview]:
        """Do the same with a unit's plaintext, which stands in a buffer from *start* to *end* and is lost.

        *view* and *array* show the buffer, which goes on for a tag and a datagram at least.
        """
        counter = key.counter
        key.counter = counter + 1
        key.blocks += -(-(end - start) // AES_BLOCK) + 2
        sealed = end - start + TAG_SIZE
        key.seal(
            _NONCE_PREFIX + counter.to_bytes(8, "little"), view[start:end], None, view[start : end + TAG_SIZE]
        )
        piece = size - FRAGMENT_HEADER_SIZE
        count = -(-sealed // piece)
        layout = self._layouts.get((count, size)) or self._lay_out(count, size)
        layout.pieces[:] = array[start : start + count * piece].reshape(count, piece)
        if self._written == (layout, key):
            layout.counters[:] = counter
        else:
            first = FRAGMENT_HEADER.pack(TYPE_FRAGMENT, 0, count, key.cipher, key.receiver_index, counter)
            np.add(np.frombuffer(first, "<u4"), _STEPS[:count], out=layout.headers)
            self._written = layout, key
        cuts, view = layout.cuts, self._out_view
        total = sealed + count * FRAGMENT_HEADER_SIZE
        if len(cuts) == 2:
            return [view[:total]]
        return [view[a : min(b, total)] for a, b in pairwise(cuts)]

    def _lay_out(self, count: int, size: int) -> _Layout:
        if len(self._layouts) >= LAYOUTS:
            self._layouts.clear()
        layout = self._layouts[count, size] = _Layout(self._out, count, size)
        return layout


def append_link(buffer: bytearray, start: int, end: int, link: bytes) -> int:
    """Put the Ethernet header *link* behind a unit's plaintext from *start* to *end*, and return
    where that ends now.
    """
    buffer[start + 1] = len(link)
    buffer[end : end + len(link)] = link
    return end + len(link)


def take_link(unit: memoryview) -> tuple[memoryview, bytes]:
    """Return an opened unit without the Ethernet header behind it, and that header.
    Raises PacketError ``no_frame``.
    """
    size = unit[LEAD + 1]
    if not size or LEAD + META.size + size > len(unit):
        raise PacketError("no_frame")
    unit[LEAD + 1] = 0
    return unit[:-size], bytes(unit[-size:])


def open_unit(aead_open: Callable[..., int], counter: int, unit: memoryview) -> memoryview:
    """Open *unit*, sealed from LEAD on, in place, and return it without its tag.  Raises PacketError ``unit_auth``."""
    end = len(unit) - TAG_SIZE
    if end < LEAD + META.size:
        raise PacketError("unit_short")
    try:
        aead_open(_NONCE_PREFIX + counter.to_bytes(8, "little"), unit[LEAD:], None, unit[LEAD:end])
    except InvalidTag:
        raise PacketError("unit_auth") from None
    return unit[:end]


def gso_type_of(flow: Flow) -> int:
    """Return what virtio calls super-packets of these headers."""
    if flow.protocol != PROTOCOL_TCP:
        return GSO_UDP_L4
    return GSO_TCPV4 if flow.version == 4 else GSO_TCPV6


def read_unit(unit: memoryview, most: int) -> tuple[memoryview, Flow, int, int]:
    """Return (packet, header positions, GSO type, segment size) of an opened unit whose every claim holds.

    *most* is the largest packet that a segment may make.  Raises PacketError ``unit_meta`` or ``unit_packet``.
    """
    gso_type, zero, segment = _META_AND_ZERO(unit, LEAD)
    packet = unit[VIRTIO_SIZE:]
    size = len(packet)
    if not 40 <= size <= MAXIMUM_PACKET:
        raise PacketError("unit_packet")
    flow = flow_of(packet)
    if flow is None:
        raise PacketError("unit_packet")
    version, protocol, l4, headers = flow
    wanted, is_tcp = gso_type_of(flow), protocol == PROTOCOL_TCP
    if zero or (gso_type != wanted and (gso_type != wanted | GSO_ECN or not is_tcp)):
        raise PacketError("unit_meta")
    if not MINIMUM_SEGMENT <= segment <= most - headers:
        raise PacketError("unit_meta")
    length = packet[2] << 8 | packet[3] if version == 4 else 40 + (packet[4] << 8 | packet[5])
    if length != size or length - headers <= segment:
        raise PacketError("unit_packet")
    if is_tcp:
        return packet, flow, wanted | (GSO_ECN if packet[l4 + 13] & CWR else 0), segment
    if packet[l4 + 4] << 8 | packet[l4 + 5] != length - l4:
        raise PacketError("unit_packet")
    return packet, flow, wanted, segment


def make_for_tun(unit: memoryview, flow: Flow, gso_type: int, segment: int, link: int = 0) -> None:
    """Make *unit*, opened and read, what is written into the tun: offsets and partial checksum are computed here.

    *link* is the size of the Ethernet header that goes between virtio header and packet.
    """
    packet = unit[VIRTIO_SIZE:]
    field = write_partial_checksum(packet, flow, len(packet))
    VIRTIO_HEADER.pack_into(unit, 0, NEEDS_CSUM, gso_type, link + flow.size, segment, link + flow.l4, field)
