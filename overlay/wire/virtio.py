"""The virtio network header that a tun device with IFF_VNET_HDR puts before each packet.

Little endian, 10 bytes (virtio 1.2 section 5.1.6; Linux ``include/uapi/linux/virtio_net.h``):

- 1 byte flags: 1 = the checksum at csum_start + csum_offset is partial (pseudo header only)
- 1 byte GSO type: 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 is added if the TCP flow uses ECN
- 2 bytes header length, only a hint: it may be larger than the headers
- 2 bytes segment size, of payload
- 2 bytes csum_start, 2 bytes csum_offset
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

VIRTIO_HEADER = struct.Struct("<BBHHHH")
VIRTIO_SIZE = VIRTIO_HEADER.size  # 10

NEEDS_CSUM = 1
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

PLAIN = bytes(VIRTIO_SIZE)
"""The header of a packet that is complete as it is."""


class Offload(NamedTuple):
    """What the header of a super-packet says: the work that its kernel leaves to us."""

    flags: int
    gso_type: int
    header_size: int
    segment: int  # bytes of payload
    csum_start: int
    csum_offset: int


def offload_at(buffer: Buffer, at: int) -> Offload:
    """Return the header at *at* in *buffer*."""
    return _make(VIRTIO_HEADER.unpack_from(buffer, at))


_make = Offload._make
