"""Packets that their kernel left to a network card to finish, where there was no card.

A kernel that sends packets in a tunnel of its own leaves it to the card to write their TCP or UDP checksums and to cut
super-packets.  Between containers of one host there is none: the frame goes over as it is, with a note of what is left
to do that a program which reads the datagram never sees.  Then the checksum holds the sum of the pseudo header and
nothing else.  This host's kernel can do both, if it is told.
"""

from __future__ import annotations

from overlay.forwarding.segments import CWR, TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, flow_of
from overlay.wire.ip import PROTOCOL_TCP, pseudo_header_sum
from overlay.wire.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, PLAIN, VIRTIO_HEADER


def virtio_for(packet: memoryview, mtu: int) -> bytes:
    """Return the virtio header to write *packet*, a whole IP packet, with: what this kernel is to finish.

    A checksum that is right and happens to be that sum comes out the same.  What is larger than *mtu* is cut so that it
    fits, for nothing tells how large its segments were to be.
    """
    flow = flow_of(packet)
    if flow is None:
        return PLAIN
    l4 = flow.l4
    is_tcp = flow.protocol == PROTOCOL_TCP
    offset = TCP_CSUM_OFFSET if is_tcp else UDP_CSUM_OFFSET
    addresses = packet[12:20] if flow.version == 4 else packet[8:40]
    total = pseudo_header_sum(addresses, b"", flow.protocol, len(packet) - l4)
    if packet[l4 + offset] << 8 | packet[l4 + offset + 1] != total:
        return PLAIN
    kind = segment = 0
    if is_tcp and len(packet) > mtu:
        kind, segment = GSO_TCPV4 if flow.version == 4 else GSO_TCPV6, mtu - flow.size
        if packet[l4 + 13] & CWR:
            kind |= GSO_ECN
    return VIRTIO_HEADER.pack(NEEDS_CSUM, kind, flow.size, segment, l4, offset)
