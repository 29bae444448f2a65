"""A dropped packet, as a forwarder reports it to a capture: one message on a separate socket.

Its time is that of its arrival, stamped by the kernel.  It is big endian, because a filter in the kernel reads it;
HEADER is followed by the start of the packet:

- 1 byte kind: what the bytes are (Kind)
- 1 byte family: 4 or 6 if the source of a datagram follows, otherwise 0
- 2 bytes reason: its place in the registry
- 4 bytes peer: its number, 0 for none
- 4 bytes length of the packet, before truncation
- 4 bytes count: of packets that were dropped together, of which this is one; 0 in the last message, which has no packet
- 8 bytes missed: packets that this capture has not been sent so far
- 2 bytes port and 2 bytes zero, 16 bytes address: the source of a datagram
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from overlay.errors import PacketError

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

HEADER = struct.Struct(">BBHIIIQHH16s")
LENGTH_AT, COUNT_AT = 8, 12  # where the length and the count are

# Ours
LONGEST = 65535 + 14  # bytes of a packet that are reported
LARGEST = 262_144  # bytes that a packet may have had, tcpdump's limit


class DroppedKind(enum.IntEnum):
    """What the bytes after the header are."""

    NOTHING = 0  # none were available
    PACKET = 1  # of the tunnel: an IP packet, with a tap an Ethernet frame
    DATAGRAM = 2  # of the network between the hosts: what UDP or a raw socket carried


@dataclass(frozen=True, slots=True)
class Dropped:
    """One packet that was dropped.  *source* is the address and port of a datagram, if known."""

    kind: DroppedKind
    reason: int
    peer: int
    length: int
    count: int
    missed: int
    data: bytes
    source: tuple[bytes, int] | None = None

    @classmethod
    def parse(cls, message: Buffer) -> Self:
        """Read a message.  Raises PacketError ``link``, and nothing else, for any bytes."""
        if not HEADER.size <= len(message) <= HEADER.size + LONGEST:
            raise PacketError("link")
        kind, family, reason, peer, length, count, missed, port, _, address = HEADER.unpack_from(message)
        if kind not in _KINDS or family not in _SIZES:
            raise PacketError("link")
        data = bytes(message[HEADER.size :])
        if not len(data) <= length <= LARGEST:
            raise PacketError("link")
        source = (address[: _SIZES[family]], port) if family else None
        return cls(_KINDS[kind], reason, peer, length, count, missed, data, source)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value."""
        return self.build_for(self.missed, len(self.data))

    def build_for(self, missed: int, snaplen: int) -> bytes:
        """Return the bytes for a capture that has missed *missed* packets, and gets *snaplen* bytes of each."""
        address, port = self.source or (b"", 0)
        family = {0: 0, 4: 4, 16: 6}[len(address)]
        head = (self.kind, family, self.reason, self.peer, self.length, self.count, missed)
        return HEADER.pack(*head, port, 0, address) + self.data[:snaplen]


_KINDS = {int(kind): kind for kind in DroppedKind}
_SIZES = {0: 0, 4: 4, 6: 16}
