"""The tunnels of a node, one with each other peer: the facts that both ends derive from the peers table, computed
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.wire.frames import FRAME_OVERHEAD
from peers import gre
from peers.mac import derived_mac
from peers.peer import TAP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.encap.encapsulation import Encapsulation
    from peers.peer import Endpoint, Peer
    from peers.table import Table

VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel with another *peer*.

    *endpoint* is where the peer is called by the tunnel's encapsulation, None if nowhere.  *ends* is what both ends
    know about each other if nothing is encrypted.  *macs* are the Ethernet addresses that are only at the peer, that of
    its tap first; none with a tun.  *overheads* is how many bytes the tunnel puts around a packet, by the version of IP
    that it runs over.
    """

    peer: Peer
    encapsulation: Encapsulation
    endpoint: Endpoint | None
    ends: Ends
    macs: tuple[bytes, ...]
    overheads: Mapping[int, int]


def make_tunnels(table: Table, own: Peer) -> dict[str, Tunnel]:
    """Return the tunnels between *own* and all other peers of *table*, by name in the order of the file."""
    network, own_mac, is_tap = table.network, _first_mac(own), table.network.device == TAP
    shared: dict[tuple[object, ...], Mapping[int, int]] = {}
    tunnels: dict[str, Tunnel] = {}
    for name, peer in table.peers.items():
        if name == own.name:
            continue
        encapsulation = ENCAPSULATIONS[table.encapsulation_between(own, peer)]
        ends = _NO_ENDS
        if not encapsulation.is_encrypted:
            pair = network, own, peer
            identifier = table.identifier_between(own, peer)
            ends = Ends(
                identifier, own_mac, _first_mac(peer), gre.has_checksum(*pair), gre.has_sequence(*pair)
            )
        shape = encapsulation.name, ends.identifier is None, ends.has_checksum, ends.has_sequence
        overheads = shared.get(shape)
        if overheads is None:
            overheads = shared[shape] = overheads_of(encapsulation, ends, is_tap=is_tap)
        # An unencrypted peer may not run an agent of this project: it has what the peers file names, and nothing
        # derived.
        macs: tuple[bytes, ...] = ()
        if is_tap:
            macs = peer.macs or ((derived_mac(name),) if encapsulation.is_encrypted else ())
        endpoint = table.endpoint_for(peer, encapsulation.name)
        tunnels[name] = Tunnel(peer, encapsulation, endpoint, ends, macs, overheads)
    return tunnels


def overheads_of(encapsulation: Encapsulation, ends: Ends, *, is_tap: bool) -> dict[int, int]:
    """Return how many bytes a tunnel puts around a packet, by the version of IP that it runs over."""
    # An unencrypted frame is part of what its encapsulation puts before a packet.
    frame = FRAME_OVERHEAD if is_tap and encapsulation.is_encrypted else 0
    return {version: encapsulation.overhead(version, ends) + frame for version in VERSIONS}


_NO_ENDS = Ends()


def _first_mac(peer: Peer) -> bytes:
    return peer.macs[0] if peer.macs else derived_mac(peer.name)
