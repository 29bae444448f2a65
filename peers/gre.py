"""The optional fields of GRE headers: a key, checksums, sequence numbers.

Each is what either of a tunnel's two peers names, else what the network does, so that both ends decide it alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.encapsulation import GRE
from peers.errors import KeyProblem, format_keys
from peers.tunnel import encapsulation_between, own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Collection

    from peers.peer import Network, Peer

KEYS = ("gre_key", "gre_checksum", "gre_sequence")


def has_checksum(network: Network, a: Peer, b: Peer) -> bool:
    """Return whether the tunnel between *a* and *b* is of GRE, and both send checksums."""
    return _named("gre_checksum", network, a, b)


def has_sequence(network: Network, a: Peer, b: Peer) -> bool:
    """Return whether the tunnel between *a* and *b* is of GRE, and both send sequence numbers."""
    return _named("gre_sequence", network, a, b)


def check_gre(network: Network, peers: Collection[Peer], in_use: Collection[str]) -> None:
    """Refuse two values for one tunnel, and values that no tunnel uses; *in_use* are encapsulations.
    Raises KeyProblem.
    """
    for key in KEYS:
        if getattr(network, key) is not None and GRE not in in_use:
            raise KeyProblem(
                ("network", key),
                'has no effect, because no peer uses gre; remove it, or write encapsulation = "gre"',
            )
        naming = [peer for peer in peers if getattr(peer, key) is not None]
        for peer in naming:
            keys, encapsulation = ("peers", peer.name, key), own_encapsulation(network, peer)
            if encapsulation != GRE:
                raise KeyProblem(
                    keys,
                    f"has no effect, because the encapsulation is {encapsulation}; remove it, or write "
                    'encapsulation = "gre"',
                )
            named, first = getattr(peer, key), getattr(naming[0], key)
            if named != first:
                other = format_keys(("peers", naming[0].name))
                raise KeyProblem(
                    keys,
                    f"is {_written(named)} and that of {other} is {_written(first)}, but the tunnel between them can "
                    "have only one; write the same at both, or none at one of them",
                )


def _named(key: str, network: Network, a: Peer, b: Peer) -> bool:
    if encapsulation_between(network, a, b) != GRE:
        return False
    named = (getattr(each, key) for each in (a, b, network))
    return bool(next((value for value in named if value is not None), False))


def _written(value: int) -> str:
    return str(value).lower()
