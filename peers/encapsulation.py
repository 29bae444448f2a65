"""How packets travel between two peers, by name, and the rule by which both ends decide it alike.

A tunnel's encapsulation is the one named at either of its peers, else the network's.  Two peers that name different
ones have no tunnel that both agree on, so such a table is refused.  ``wireguard`` alone encrypts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers.peer import Network, Peer

WIREGUARD = "wireguard"
DEFAULT_UDP_PORT = 8285  # that of flannel's udp backend
ENCAPSULATIONS = (WIREGUARD, "udp")


def is_encrypted(encapsulation: str) -> bool:
    """Return whether what *encapsulation* carries can be read and made by its two ends alone."""
    return encapsulation == WIREGUARD


def own_encapsulation(network: Network, peer: Peer) -> str:
    """Return what *peer* names, else what the network does; the port of its endpoint is meant for this."""
    return peer.encapsulation or network.encapsulation


def encapsulation_between(network: Network, a: Peer, b: Peer) -> str:
    """Return the encapsulation of the tunnel between *a* and *b*, which is the same for *b* and *a*."""
    return a.encapsulation or b.encapsulation or network.encapsulation
