"""Peers while one change by `wg` is applied to them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from overlay.uapi.amended import Amended
from overlay.uapi.errors import INVALID, UNSUPPORTED, RefusedError
from overlay.uapi.language import NO_PRESHARED_KEY
from peers.addresses import host_prefix
from peers.encapsulation import WIREGUARD
from peers.peer import Peer, format_public_key
from peers.prefixes import PrefixMap
from peers.tunnel import encapsulation_between, own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.crypto.keys import PresharedKey
    from overlay.uapi.amended import Filed, Merged
    from overlay.uapi.language import PeerChange
    from peers.addresses import Address, Prefix
    from peers.peer import Endpoint, Network

# Ours
NAME_CHARACTERS = 8  # of the public key in the name of a peer that `wg` made: 48 bits


def speaks_wireguard(network: Network, own: Peer, peer: Peer) -> bool:
    """Return whether the tunnel between *own* and *peer* speaks WireGuard."""
    return encapsulation_between(network, own, peer) == WIREGUARD


def name_of(public_key: bytes, taken: Mapping[str, object]) -> str:
    """Return a name made from *public_key* that is not *taken*."""
    text = base64.urlsafe_b64encode(public_key).decode().rstrip("=")
    sizes = range(NAME_CHARACTERS, len(text) + 1)
    names = (f"peer-{text[:size]}" for size in sizes)
    return next((name for name in names if name not in taken), f"peer--{text}")


@dataclass(slots=True)
class _Draft:
    # A peer while a change is applied.
    name: str
    allowed: dict[Prefix, None]
    endpoint: Endpoint | None
    keepalive: int
    preshared_key: PresharedKey | None  # None: as in the file


class Drafts:
    """The peers while a change is applied: those that it touches, as drafts, by public key."""

    def __init__(self, filed: Filed, merged: Merged) -> None:
        self._filed, self._merged = filed, merged
        self._drafts: dict[bytes, _Draft | None] = {}  # None: removed
        self._allowed: dict[str, list[Prefix]] = {}
        for prefix, name in merged.table.routes:
            self._allowed.setdefault(name, []).append(prefix)
        self._owners: dict[Prefix, bytes | None] = {}  # None: of this node, or of an unencrypted peer
        for peer in (*merged.table.peers.values(), *merged.peers.values()):
            key = peer.public_key if peer.public_key in merged.peers else None
            for prefix in self._prefixes(peer):
                self._owners[prefix] = key
        self._names: dict[str, object] = {**merged.table.peers, **filed.table.peers}
        self._names |= {peer.name: peer for peer in merged.peers.values()}

    def _prefixes(self, peer: Peer) -> list[Prefix]:
        found = self._allowed.get(peer.name)
        if found is None:  # the peer waits for a private key, or does not exist
            found = list(dict.fromkeys([*peer.subnets, *map(host_prefix, peer.addresses)]))
        return found

    def remove(self, public_key: bytes) -> None:
        """Remove the peer, if it exists."""
        draft = self._find(public_key)
        if draft is not None:
            for prefix in draft.allowed:
                self._owners.pop(prefix, None)
            self._drafts[public_key] = None

    def take(self, change: PeerChange) -> None:
        """Apply *change*.  Raises RefusedError."""
        draft = self._find(change.public_key)
        if draft is None:
            if change.is_removed or change.is_update:
                return
            draft = self._drafts[change.public_key] = self._make(change.public_key)
        if change.is_removed:
            self.remove(change.public_key)
            return
        if change.endpoint is not None:
            draft.endpoint = change.endpoint
        if change.keepalive is not None:
            draft.keepalive = change.keepalive
        if change.preshared_key is not None:
            draft.preshared_key = change.preshared_key
        if change.replaces_allowed:
            for prefix in draft.allowed:
                self._owners.pop(prefix, None)
            draft.allowed.clear()
        for each in change.allowed:
            if each.is_removed:
                if each.prefix in draft.allowed:
                    del draft.allowed[each.prefix]
                    self._owners.pop(each.prefix, None)
            else:
                self._give(each.prefix, change.public_key, draft)

    def amended(self, before: Mapping[bytes, Amended]) -> Mapping[bytes, Amended]:
        """Return all peers that now differ from the file, given those that did *before*."""
        amended = dict(before)
        for public_key, draft in self._drafts.items():
            amended.pop(public_key, None)
            filed = self._filed.table.find_by_public_key(public_key)
            if filed is not None and filed is self._filed.own:
                continue
            if draft is None:
                if filed is not None:
                    amended[public_key] = Amended(filed, None)
                continue
            peer, key = self._peer(public_key, draft, filed), self._key(draft, filed)
            if peer is not filed or key is not None:
                former = self._merged.peers.get(public_key)
                peer = peer if peer.by_wg else replace(peer, by_wg=True)
                amended[public_key] = Amended(filed, former if peer == former else peer, key)
        return MappingProxyType(amended)

    def _find(self, public_key: bytes) -> _Draft | None:
        """Return the draft of an existing peer."""
        if public_key in self._drafts:
            return self._drafts[public_key]
        peer = self._merged.peers.get(public_key)
        if peer is None:
            return None
        amended = self._merged.amendments.peers.get(public_key)
        draft = self._drafts[public_key] = _Draft(
            peer.name,
            dict.fromkeys(self._prefixes(peer)),
            peer.endpoint,
            peer.keepalive,
            None if amended is None else amended.preshared_key,
        )
        return draft

    def _make(self, public_key: bytes) -> _Draft:
        """Return the draft of a peer that does not exist, or was removed."""
        filed = self._filed.table.find_by_public_key(public_key)
        former = self._merged.peers.get(public_key)
        if filed is not None and former is None and public_key not in self._merged.amendments.peers:
            raise RefusedError(
                UNSUPPORTED,
                f"wg cannot change {filed.name} ({format_public_key(public_key)}), which does not speak WireGuard with "
                "this node: change the peers file",
            )
        known = former or filed
        name = known.name if known is not None else name_of(public_key, self._names)
        self._names[name] = public_key
        return _Draft(name, {}, None, 0, NO_PRESHARED_KEY)

    def _give(self, prefix: Prefix, public_key: bytes, draft: _Draft) -> None:
        if prefix in draft.allowed:
            return
        if prefix in self._owners:
            owner = self._owners[prefix]
            if owner is None:
                raise RefusedError(
                    INVALID,
                    f"wg gave {prefix} to {draft.name}, and the peers file gives it to this node or to a peer that "
                    "does not speak WireGuard: change it there",
                )
            loser = self._find(owner)
            assert loser is not None
            loser.allowed.pop(prefix, None)
        self._owners[prefix] = public_key
        draft.allowed[prefix] = None

    def _peer(self, public_key: bytes, draft: _Draft, filed: Peer | None) -> Peer:
        """Return the peer that *draft* has become; *filed* itself if it does not differ."""
        former = self._merged.peers.get(public_key)
        for like in (filed, former):
            if like is not None and set(draft.allowed) == set(self._all_of(like)):
                subnets, addresses = like.subnets, like.addresses
                break
        else:
            likely = filed or former
            addresses = () if likely is None else self._still_its(public_key, draft, likely.addresses)
            subnets = tuple(draft.allowed)
        network = self._filed.table.network
        likely = filed or former
        if likely is None:  # computed once for all, because there may be ten thousand
            peer = Peer(
                *(draft.name, public_key, subnets, addresses, draft.endpoint),
                keepalive=draft.keepalive,
                agent=False,
                by_wg=True,
            )
        else:
            peer = replace(
                likely,
                name=draft.name,
                subnets=subnets,
                addresses=addresses,
                endpoint=draft.endpoint,
                keepalive=draft.keepalive,
                by_wg=filed is None,
            )
        if filed is not None and peer == filed:
            return filed
        if own_encapsulation(network, peer) != WIREGUARD:  # the port of the endpoint is not WireGuard's
            peer = replace(peer, encapsulation=WIREGUARD)
        if not speaks_wireguard(network, self._filed.own, peer):
            raise RefusedError(
                UNSUPPORTED,
                f"wg cannot add {peer.name}: the peers file gives this node an encapsulation that such a peer does not "
                "speak",
            )
        return peer

    def _still_its(
        self, public_key: bytes, draft: _Draft, addresses: tuple[Address, ...]
    ) -> tuple[Address, ...]:
        """Return those of *addresses* that are in the prefixes of *draft* and do not belong to another peer."""
        if not addresses:
            return ()
        held = PrefixMap((prefix, True) for prefix in draft.allowed)
        return tuple(
            each
            for each in addresses
            if held.lookup(each) and self._owners.get(host_prefix(each), public_key) == public_key
        )

    def _all_of(self, peer: Peer) -> list[Prefix]:
        if self._merged.table.peers.get(peer.name) is peer:
            return self._prefixes(peer)
        if self._filed.table.peers.get(peer.name) is peer:
            owners = self._filed.table.owners
            hosts = [host_prefix(each) for each in peer.addresses]
            hosts = [each for each in hosts if _is_host_route(owners, each, peer)]
            return list(dict.fromkeys([*peer.subnets, *hosts]))
        return self._prefixes(peer)

    def _key(self, draft: _Draft, filed: Peer | None) -> PresharedKey | None:
        """Return the preshared key of *draft* if it is not the file's."""
        key = draft.preshared_key
        if key is None:
            return None
        there = NO_PRESHARED_KEY
        if filed is not None and filed.name in self._filed.preshared_keys:
            there = type(key)(self._filed.preshared_keys[filed.name])
        return None if key == there else key


def _is_host_route(owners: PrefixMap[str], prefix: Prefix, peer: Peer) -> bool:
    found = next(owners.covering(prefix), None)
    return found is not None and found[0] == prefix and found[1] == peer.name
