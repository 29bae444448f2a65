"""What `wg` changed of a node: kept beside the table of the peers file, and put on top of it.

The peers file is read as ever.  Amendments say which peers, and which values of the node, are otherwise than there, and
how the file had them at that time.  Where the file comes to have one otherwise, the file's word is the newer one: that
amendment is dropped.  What results is a table like any other, and takes effect like any other.

Values and text only: whoever calls apply() and merge() puts the table in force.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from overlay.uapi.errors import INVALID, UNSUPPORTED, RefusedError
from overlay.uapi.language import NO_PRESHARED_KEY
from peers.addresses import host_prefix
from peers.encapsulation import WIREGUARD
from peers.peer import Peer, format_public_key
from peers.prefixes import PrefixMap
from peers.table import Table
from peers.tunnel import encapsulation_between, own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from overlay.crypto.keys import PresharedKey, PrivateKey
    from overlay.uapi.language import DeviceChange, PeerChange
    from peers.addresses import Address, Prefix
    from peers.peer import Endpoint, Network

V = TypeVar("V")

# Ours
NAME_CHARACTERS = 8  # of the public key in the name of a peer that `wg` made: 48 bits


@dataclass(frozen=True, slots=True)
class Replaced(Generic[V]):
    """A value of the node that is *now* otherwise than in the peers file, where it was *filed*."""

    filed: object
    now: V


@dataclass(frozen=True, slots=True)
class Amended:
    """A peer that is otherwise than in the peers file; *filed* is None where it is not there, *peer* if it is removed.

    *preshared_key* None is that of the file.
    """

    filed: Peer | None
    peer: Peer | None
    preshared_key: PresharedKey | None = None


@dataclass(frozen=True, slots=True)
class Amendments:
    """All that `wg` changed and that is still so.  A value of the node that is None is as in the peers file.

    *peers* are by public key.  *private_key* that is now None is none: then no peer that needs one is in the table.
    """

    peers: Mapping[bytes, Amended] = field(default_factory=dict)
    private_key: Replaced[PrivateKey | None] | None = None
    listen_port: Replaced[int] | None = None
    fwmark: Replaced[int | None] | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.peers) or any(
            each is not None for each in (self.private_key, self.listen_port, self.fwmark)
        )


NOTHING = Amendments()


@dataclass(frozen=True, slots=True)
class Filed:
    """What the peers file says: its *table*, which peer this node is, its key,
    and the *preshared_keys* by peer name.
    """

    table: Table
    own: Peer
    private_key: PrivateKey
    preshared_keys: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Merged:
    """A table with *amendments*, those that hold, in it.

    *peers* are the others whose tunnels speak WireGuard, by public key, in the table or not: those that wait for a
    private key are not.  *private_key* is None as long as there is none.
    """

    table: Table
    own: Peer
    private_key: PrivateKey | None
    preshared_keys: Mapping[str, bytes] = field(repr=False)
    peers: Mapping[bytes, Peer]
    amendments: Amendments

    def describe(self) -> str | None:
        """Return a sentence on what is otherwise than in the peers file; None where nothing is."""
        found, amendments = [], self.amendments
        for verb, peers in (
            ("changed", [each.peer for each in amendments.peers.values() if each.filed and each.peer]),
            ("added", [each.peer for each in amendments.peers.values() if not each.filed]),
            ("removed", [each.filed for each in amendments.peers.values() if not each.peer]),
        ):
            names = sorted(each.name for each in peers if each is not None)
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                found.append(f"{verb} {', '.join(names[:NAMED])}{more}")
        values = {
            "the private key": amendments.private_key,
            "the listen port": amendments.listen_port,
            "the mark": amendments.fwmark,
        }
        if changed := [name for name, value in values.items() if value is not None]:
            found.append(f"changed {' and '.join(changed)}")
        if not found:
            return None
        return f"wg {'; '.join(found)}: this holds until the peers file changes it, or the agent ends"


NAMED = 5  # peers in a sentence


def merge(filed: Filed, amendments: Amendments) -> Merged:
    """Return the table of *filed* with those of *amendments* in it that still hold.

    A peer whose section is another now is as the file has it, and what the file gives to a peer is taken from those
    that `wg` gave it to.  Raises KeyProblem where the rest makes no table, as without a peer that a service names.
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
            if peer.name in peers:  # of a peer that the file has now
                peer = replace(peer, name=_name(public_key, peers))
            peers[peer.name] = peer
        amended[public_key] = each if peer is each.peer else replace(each, peer=peer)
    kept = replace(kept, peers=MappingProxyType(amended))
    speaking = {
        peer.public_key: peer
        for peer in peers.values()
        if peer.public_key is not None and peer is not own and _speaks_wireguard(network, own, peer)
    }
    if key is None:
        peers = {name: peer for name, peer in peers.items() if peer.public_key not in speaking}
    table = filed.table
    if kept:
        table = Table(network, _in_order(peers, table), table.sections)
    return Merged(table, own, key, _preshared_keys(filed, peers, amended), MappingProxyType(speaking), kept)


def apply(filed: Filed, merged: Merged, change: DeviceChange) -> Amendments:
    """Return what is otherwise than in *filed* after *change* of *merged*.  Raises RefusedError; nothing is changed.

    As with any WireGuard, changes take place in their order, a prefix leaves the peer that had it, and a peer with this
    node's own key is passed over.  A peer that is removed and made again in one change has been there all the time.
    """
    drafts = _Drafts(filed, merged)
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
    """Return those of *amendments* of which the file says what it said then."""
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


def _speaks_wireguard(network: Network, own: Peer, peer: Peer) -> bool:
    return encapsulation_between(network, own, peer) == WIREGUARD


def _in_order(peers: Mapping[str, Peer], table: Table) -> dict[str, Peer]:
    """Return *peers* in the order of *table*, and behind them those that are not there."""
    ordered = {name: peers[name] for name in table.peers if name in peers}
    return ordered | {name: peer for name, peer in peers.items() if name not in ordered}


def _preshared_keys(
    filed: Filed, peers: Mapping[str, Peer], amended: Mapping[bytes, Amended]
) -> dict[str, bytes]:
    """Return the preshared keys of *peers*; one that `wg` made has none of the file's."""
    keys = {}
    for name, peer in peers.items():
        each = None if peer.public_key is None else amended.get(peer.public_key)
        if each is not None and each.preshared_key is not None:
            if each.preshared_key != NO_PRESHARED_KEY:
                keys[name] = each.preshared_key.secret
        elif (each is None or each.filed is not None) and name in filed.preshared_keys:
            keys[name] = filed.preshared_keys[name]
    return keys


def _name(public_key: bytes, taken: Mapping[str, object]) -> str:
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


class _Drafts:
    # The peers while a change is applied: those that it touches as drafts, by public key.

    def __init__(self, filed: Filed, merged: Merged) -> None:
        self._filed, self._merged = filed, merged
        self._drafts: dict[bytes, _Draft | None] = {}  # None: removed
        self._allowed: dict[str, list[Prefix]] = {}
        for prefix, name in merged.table.routes:
            self._allowed.setdefault(name, []).append(prefix)
        self._owners: dict[Prefix, bytes | None] = {}  # None: of this node, or of a peer in the clear
        for peer in (*merged.table.peers.values(), *merged.peers.values()):
            key = peer.public_key if peer.public_key in merged.peers else None
            for prefix in self._prefixes(peer):
                self._owners[prefix] = key
        self._names: dict[str, object] = {**merged.table.peers, **filed.table.peers}
        self._names |= {peer.name: peer for peer in merged.peers.values()}

    def _prefixes(self, peer: Peer) -> list[Prefix]:
        found = self._allowed.get(peer.name)
        if found is None:  # it waits for a private key, or has none
            found = list(dict.fromkeys([*peer.subnets, *map(host_prefix, peer.addresses)]))
        return found

    def remove(self, public_key: bytes) -> None:
        """Remove the peer, if it is there."""
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
        """Return all peers that are otherwise than in the file now, given those that were *before*."""
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
        """Return the draft of a peer that is there."""
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
        """Return the draft of a peer that is not there, as one that was removed is not."""
        filed = self._filed.table.find_by_public_key(public_key)
        former = self._merged.peers.get(public_key)
        if filed is not None and former is None and public_key not in self._merged.amendments.peers:
            raise RefusedError(
                UNSUPPORTED,
                f"wg cannot change {filed.name} ({format_public_key(public_key)}), which does not speak WireGuard with "
                "this node: change the peers file",
            )
        known = former or filed
        name = known.name if known is not None else _name(public_key, self._names)
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
        """Return the peer that *draft* has become; *filed* itself where nothing is otherwise there."""
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
        if likely is None:  # made in one go, for there may be ten thousand
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
        if own_encapsulation(network, peer) != WIREGUARD:  # the port of an endpoint is meant for a peer's own
            peer = replace(peer, encapsulation=WIREGUARD)
        if not _speaks_wireguard(network, self._filed.own, peer):
            raise RefusedError(
                UNSUPPORTED,
                f"wg cannot make {peer.name}: the peers file gives this node an encapsulation that it would not speak",
            )
        return peer

    def _still_its(
        self, public_key: bytes, draft: _Draft, addresses: tuple[Address, ...]
    ) -> tuple[Address, ...]:
        """Return those of *addresses* that the prefixes of *draft* hold and that are no other peer's."""
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
        """Return the preshared key of *draft* where it is not the file's."""
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
