"""The counters of each peer, as they are reported to the agent: a few rows per message, so that packets pass in
between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.link.messages import PeerCounters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from overlay.forwarding.keypair import Keypair
    from overlay.forwarding.peer import LivePeer

# Ours
PEERS_PER_MESSAGE = 20  # rows, made and packed in 0.1 ms


def batches(peers: Sequence[LivePeer]) -> Iterator[tuple[Sequence[LivePeer], bool]]:
    """Yield *peers* in pieces, one for each message, and whether a piece is the last; without peers, an empty one."""
    for at in range(0, max(1, len(peers)), PEERS_PER_MESSAGE):
        yield peers[at : at + PEERS_PER_MESSAGE], at + PEERS_PER_MESSAGE >= len(peers)


def row(peer: LivePeer, mtu: int, overhead: int, learnt: int, lanes: int = 1) -> PeerCounters:
    """Return the counters of *peer*, where a payload takes *mtu* bytes, *overhead* of them before the packet.

    *learnt* is the number of Ethernet addresses there, *lanes* that of the lanes of this node.
    """
    keypair = peer.keypairs.current
    are_open = [True] if keypair is None or keypair.lanes is None else keypair.lanes.are_open()
    return PeerCounters(
        peer.number,
        peer.endpoint,
        peer.traffic.tx_bytes,
        peer.traffic.rx_bytes,
        peer.traffic.tx_packets,
        peer.traffic.rx_packets,
        peer.contact.last_received,
        dict(peer.drops),
        peer.traffic.tx_units,
        peer.traffic.rx_units,
        _known_path_mtu(peer, mtu, overhead),
        learnt,
        peer.traffic.by_lane(lanes) if lanes > 1 else [],
        len(are_open),
        sum(are_open),
        _unit_segments(keypair),
    )


def _unit_segments(keypair: Keypair[LivePeer] | None) -> int:
    """Return how many segments a bulk unit under *keypair* carries at most now; 0 where plain messages go."""
    bulk = None if keypair is None else keypair.bulk
    return 0 if bulk is None or bulk.key is None or bulk.size.is_plain else bulk.size.limit


def _known_path_mtu(peer: LivePeer, mtu: int, overhead: int) -> int:
    """Return the largest packet that, according to a probe or the kernel, reaches *peer*; 0 if neither knows."""
    if peer.path.is_known:
        return min(peer.path.mtu, mtu) - overhead
    return (
        peer.path.search.size - overhead
        if peer.path.search is not None and peer.path.search.is_confirmed
        else 0
    )
