"""What both ends of a tunnel decide alike from the peers table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.encapsulation import FACTS, resolve

if TYPE_CHECKING:
    from peers.peer import Network, Peer


def own_encapsulation(network: Network, peer: Peer) -> str:
    """Return what *peer* names, else what the network does; the port of its endpoint is meant for this."""
    return peer.encapsulation or network.encapsulation


def encapsulation_between(network: Network, a: Peer, b: Peer) -> str:
    """Return the encapsulation of the tunnel between *a* and *b*, which is the same for *b* and *a*."""
    return resolve(a.encapsulation, b.encapsulation, network.encapsulation)


def identifier_between(network: Network, a: Peer, b: Peer) -> int | None:
    """Return the number that tells the tunnel between *a* and *b* from others of its encapsulation, as both send it.

    A GRE key, a VXLAN network identifier, or None where there is none.
    """
    identifier = FACTS[encapsulation_between(network, a, b)].identifier
    if identifier is None:
        return None
    named = (getattr(each, identifier.key, None) for each in (a, b, network))
    return next((number for number in named if number is not None), None)
