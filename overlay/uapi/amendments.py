"""Changes that `wg` made to a node: kept apart from the table of the peers file, and applied on top of it.

The peers file is read as always.  Amendments have the peers and the values of the node that differ from it, and what
the file said at that time.  If the file later says something else, it is newer, and the amendment is dropped.  The
result is a table like any other, and takes effect like any other.

Values and text only: the callers of apply() and merge() put the table into force.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from overlay.uapi.amended import Amendments, Merged, Replaced
from overlay.uapi.drafts import Drafts, name_of, speaks_wireguard
from overlay.uapi.errors import UNSUPPORTED, RefusedError
from overlay.uapi.language import NO_PRESHARED_KEY
from peers.addresses import host_prefix
from peers.encapsulation import WIREGUARD
from peers.table import Table
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.crypto.keys import PrivateKey
    from overlay.uapi.amended import Amended, Filed
    from overlay.uapi.language import DeviceChange
    from peers.addresses import Prefix
    from peers.peer import Peer


def merge(filed: Filed, amendments: Amendments) -> Merged:
    """Return the table of *filed* with those of *amendments* that still apply.

    A peer whose section has changed is as in the file, and a prefix that the file gives to a peer is taken from those
    to which `wg` gave it.  Raises KeyProblem if the result is not a valid table, such as one without a peer that a
    service names.
    """
    kept = _still_held(filed, amendments)
    own, network = filed.own, filed.table.network
    if kept.listen_port is not None:
        own = replace(own, listen_port=kept.listen_port.now)
    if kept.fwmark is not None:
        network = replace(network, fwmark=kept.fwmark.now)
    key: PrivateKey | None = filed.private_key
    if kept.private_key is not None:
        key = kept.private_key.now
        own = replace(own, public_key=key.public) if key is not None else own
    taken = {own.public_key, *kept.peers}
    peers = {name: peer for name, peer in filed.table.peers.items() if peer.public_key not in taken}
    peers[own.name] = own
    claimed = _claims(peers.values()) if kept.peers else set()
    amended: dict[bytes, Amended] = {}
    for public_key, each in kept.peers.items():
        peer = each.peer if key is None or public_key != key.public else None
        if peer is not None:
            peer = _without(peer, claimed)
            if peer.name in peers:  # the name belongs to a peer of the file now
                peer = replace(peer, name=name_of(public_key, peers))
            peers[peer.name] = peer
        amended[public_key] = each if peer is each.peer else replace(each, peer=peer)
    kept = replace(kept, peers=MappingProxyType(amended))
    speaking = {
        peer.public_key: peer
        for peer in peers.values()
        if peer.public_key is not None and peer is not own and speaks_wireguard(network, own, peer)
    }
    if key is None:
        peers = {name: peer for name, peer in peers.items() if peer.public_key not in speaking}
    table = filed.table
    if kept:
        table = Table(network, _in_order(peers, table), table.sections)
    return Merged(table, own, key, _preshared_keys(filed, peers, amended), MappingProxyType(speaking), kept)


def apply(filed: Filed, merged: Merged, change: DeviceChange) -> Amendments:
    """Return the differences from *filed* after *change* of *merged*.  Raises RefusedError; nothing is changed.

    As in every WireGuard, changes apply in order, a prefix moves from the peer that had it, and a peer with this node's
    own key is ignored.  A peer that is removed and made again in one change counts as unchanged.
    """
    drafts = Drafts(filed, merged)
    amendments = merged.amendments
    key = merged.private_key
    if change.takes_key:
        key = change.private_key
        same = key is not None and key == filed.private_key and key.public == filed.own.public_key
        amendments = replace(amendments, private_key=None if same else Replaced(filed.own.public_key, key))
        if key is not None:
            drafts.remove(key.public)
    if change.listen_port is not None:
        amendments = replace(amendments, listen_port=_listen_port(filed, merged, change.listen_port))
    if change.fwmark is not None:
        before, now = filed.table.network.fwmark, change.fwmark or None
        amendments = replace(amendments, fwmark=None if now == before else Replaced(before, now))
    if change.replaces_peers:
        for public_key in list(merged.peers):
            drafts.remove(public_key)
    for each in change.peers:
        if key is None or each.public_key != key.public:
            drafts.take(each)
    return replace(amendments, peers=drafts.amended(amendments.peers))


def _still_held(filed: Filed, amendments: Amendments) -> Amendments:
    """Return those of *amendments* for which the file still says the same."""
    peers = {
        public_key: each
        for public_key, each in amendments.peers.items()
        if _is_same(filed.table.find_by_public_key(public_key), each.filed)
    }
    key, port, mark = amendments.private_key, amendments.listen_port, amendments.fwmark
    return Amendments(
        MappingProxyType(peers),
        key if key is not None and key.filed == filed.own.public_key else None,
        port if port is not None and port.filed == filed.own.listen_port else None,
        mark if mark is not None and mark.filed == filed.table.network.fwmark else None,
    )


def _is_same(one: Peer | None, other: Peer | None) -> bool:
    return one is other or one == other


def _listen_port(filed: Filed, merged: Merged, port: int) -> Replaced[int] | None:
    network, own = filed.table.network, filed.own
    if own_encapsulation(network, own) != WIREGUARD:
        raise RefusedError(
            UNSUPPORTED,
            f"wg cannot set the port of {own.name}, whose own encapsulation is another: write it in the peers file",
        )
    now = merged.amendments.listen_port
    if port == 0 and now is not None and now.now == 0:
        return now
    same = port and port == filed.table.listen_port(own, WIREGUARD)
    return None if same else Replaced(own.listen_port, port)


def _claims(peers: Iterable[Peer]) -> set[Prefix]:
    """Return the prefixes that the file gives to *peers*, and their addresses."""
    claimed: set[Prefix] = set()
    for peer in peers:
        claimed.update(peer.subnets)
        claimed.update(map(host_prefix, peer.addresses))
    return claimed


def _without(peer: Peer, claimed: set[Prefix]) -> Peer:
    """Return *peer* without what others have *claimed*."""
    subnets = tuple(each for each in peer.subnets if each not in claimed)
    addresses = tuple(each for each in peer.addresses if host_prefix(each) not in claimed)
    if len(subnets) == len(peer.subnets) and len(addresses) == len(peer.addresses):
        return peer
    return replace(peer, subnets=subnets, addresses=addresses)


def _in_order(peers: Mapping[str, Peer], table: Table) -> dict[str, Peer]:
    """Return *peers* in the order of *table*, followed by those that are not in it."""
    ordered = {name: peers[name] for name in table.peers if name in peers}
    return ordered | {name: peer for name, peer in peers.items() if name not in ordered}


def _preshared_keys(
    filed: Filed, peers: Mapping[str, Peer], amended: Mapping[bytes, Amended]
) -> dict[str, bytes]:
    """Return the preshared keys of *peers*; a peer that `wg` made has none from the file."""
    keys = {}
    for name, peer in peers.items():
        each = None if peer.public_key is None else amended.get(peer.public_key)
        if each is not None and each.preshared_key is not None:
            if each.preshared_key != NO_PRESHARED_KEY:
                keys[name] = each.preshared_key.secret
        elif (each is None or each.filed is not None) and name in filed.preshared_keys:
            keys[name] = filed.preshared_keys[name]
    return keys
