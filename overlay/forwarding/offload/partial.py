"""Packets with partial checksums, left by this host's kernel, or by one that is reached without a physical link.

A kernel that sends through a tunnel of its own leaves TCP and UDP checksums and the segmentation of super-packets to
the network card; between containers of one host there is no card, and they arrive as they are.  A device with GRO on
also merges TCP segments that come inside IP in IP or GRE, up to 64 KB.  A socket gets such a super-packet whole,
without its segment size.  Like any incomplete packet it is recognized by its checksum: the field holds the folded sum
of the pseudo header alone.  The kernel vouches for the rest: it has checked the sum of what it merged, and what was
never cut was never on a wire.

It goes into the tun as a super-packet.  The segment size should be the original one: with a larger size, a narrow link
behind this host would refuse segments that had fitted.  If the whole divides into equal segments, as few as the tun's
MTU allows, their size is taken, which is right except for senders of much smaller ones.  Otherwise the size that was
found last is taken, and without one, what the MTU allows.  A link that refuses these nevertheless says so with an ICMP
error, which passes through here on its way to the sender, and is respected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.forwarding.offload.flow import flow_of
from overlay.wire.ip import PROTOCOL_TCP, pseudo_header_sum
from overlay.wire.partial import TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, may_be_partial
from overlay.wire.tcp import CWR
from overlay.wire.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, PLAIN, VIRTIO_HEADER

if TYPE_CHECKING:
    from overlay.forwarding.offload.flow import Flow
    from overlay.forwarding.peer import LivePeer


def virtio_for(peer: LivePeer, packet: memoryview, mtu: int) -> bytes:
    """Return the header with which *packet*, just received from *peer*, goes into a tun of *mtu* bytes.

    Raises PacketError ``udp_merged`` for datagrams that cannot be told apart any more, and ``inner_length`` for
    headers that leave no room in a packet.
    """
    flow = flow_of(packet) if may_be_partial(packet) else None
    if flow is None:
        return PLAIN
    offset = TCP_CSUM_OFFSET if flow.protocol == PROTOCOL_TCP else UDP_CSUM_OFFSET
    at = flow.l4 + offset
    ends = (packet[12:16], packet[16:20]) if flow.version == 4 else (packet[8:24], packet[24:40])
    partial = pseudo_header_sum(*ends, flow.protocol, len(packet) - flow.l4)
    if packet[at] << 8 | packet[at + 1] != partial:
        return PLAIN
    is_tcp = flow.protocol == PROTOCOL_TCP
    limit = min(mtu, peer.unsealed.segment_limit) if is_tcp else mtu
    if len(packet) <= limit:
        # Where this happens to be the whole checksum, too, the kernel finds it again.
        return VIRTIO_HEADER.pack(NEEDS_CSUM, 0, flow.size, 0, flow.l4, offset)
    if not is_tcp:
        raise PacketError("udp_merged")
    if limit <= flow.size:
        raise PacketError("inner_length")
    kind = GSO_TCPV4 if flow.version == 4 else GSO_TCPV6
    if packet[flow.l4 + 13] & CWR:
        kind |= GSO_ECN
    segment = _segment(peer, flow, len(packet) - flow.size, limit - flow.size)
    return VIRTIO_HEADER.pack(NEEDS_CSUM, kind, flow.size, segment, flow.l4, offset)


def _segment(peer: LivePeer, flow: Flow, payload: int, most: int) -> int:
    """Return the segment size of *payload* bytes that were merged, of *most* bytes each at most."""
    count = -(-payload // most)
    if payload % count == 0:
        peer.unsealed.segment_size = flow.size + payload // count
        return payload // count
    found = peer.unsealed.segment_size - flow.size
    return found if 0 < found <= most else most
