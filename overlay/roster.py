"""The other peers by number, as agent and forwarder identify them, and what a new table changes.

Computes only: it returns the commands for the forwarder, in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from overlay.encap import wireguard
from overlay.encap.encapsulation import Ends
from overlay.link.messages import (
    OWN,
    ROUTES_PER_MESSAGE,
    Command,
    RemovePeer,
    Routes,
    SetEndpoint,
    SetPeer,
    keys_for,
)
from overlay.troubles.whereabouts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.config import Node
    from overlay.encap.encapsulation import Encapsulation
    from overlay.tunnels import Tunnel
    from overlay.wire.addresses import Sockaddr
    from peers.addresses import Address, Prefix
    from peers.peer import Endpoint, Peer


@dataclass(eq=False, slots=True)
class Remote:
    """Another peer of the overlay."""

    number: int
    peer: Peer
    preshared_key: bytes | None = field(repr=False)
    encapsulation: Encapsulation = wireguard.ENCAPSULATION  # of the tunnel with it
    ends: Ends = field(default_factory=Ends)
    macs: tuple[bytes, ...] = ()  # Ethernet addresses that are only there, if the device is a tap
    configured: Endpoint | None = None  # where that tunnel should end
    endpoint: Sockaddr | None = None  # where the forwarder sends to
    heard_at: Sockaddr | None = None  # where it was last heard from, authenticated
    resolved: tuple[Sockaddr, ...] = ()  # the addresses of the configured endpoint
    resolved_at: float = 0.0
    resolve_error: str | None = None  # why the last look-up failed, if it did
    is_confirmed: bool = False  # it has been heard from under a keypair made by this agent
    replays: int = 0  # its initiations that were not newer than the last
    foreign: int = 0  # messages about services that it does not direct
    is_silent: bool = False  # packets were sent to it, and nothing comes back
    lost_at: float | None = None  # when it became silent, or was given up
    round_trip: float | None = None  # of the last handshake, in seconds, including the work of both ends
    shaken_at: float = -math.inf  # when that handshake was
    whereabouts: Whereabouts = field(default_factory=Whereabouts)


@dataclass(frozen=True, slots=True)
class RosterChange:
    """What a new table changes, beyond the prefixes."""

    added: list[Remote]
    removed: list[Remote]
    new_endpoint: list[Remote]  # configured differently than before
    new_preshared_key: list[Remote]
    commands: list[Command]
    """For the forwarder: peers first, then the prefixes that lead to them, then the peers to forget."""
    new_public_key: list[Remote] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Update:
    """What happens to a peer that stays."""

    remote: Remote
    tunnel: Tunnel
    preshared_key: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A table that is not in force yet, and all that it changes."""

    node: Node
    change: RosterChange
    by_name: dict[str, Remote]
    by_number: dict[int, Remote]
    last: int
    updates: list[Update]


class Roster:
    """The remotes of the table in force.  A number is never used twice."""

    def __init__(self) -> None:
        self.by_number: dict[int, Remote] = {}
        self.by_name: dict[str, Remote] = {}
        self._last = OWN
        self.node: Node | None = None  # of the table in force
        self.changes = 0  # tables that have been in force

    def change_to(self, node: Node) -> RosterChange:
        """Put *node*'s table into force and return the changes."""
        return self.take(self.foresee(node))

    def take(self, prospect: Prospect) -> RosterChange:
        """Put the table of *prospect*, which was foreseen from the current one, into force."""
        self.node, self._last = prospect.node, prospect.last
        self.changes += 1
        self.by_name, self.by_number = prospect.by_name, prospect.by_number
        for update in prospect.updates:
            remote, tunnel = update.remote, update.tunnel
            if tunnel.endpoint != remote.configured:
                remote.resolve_error = None  # the error was about another name
            remote.peer, remote.preshared_key = tunnel.peer, update.preshared_key
            remote.ends, remote.macs, remote.configured = tunnel.ends, tunnel.macs, tunnel.endpoint
        return prospect.change

    def foresee(self, node: Node) -> Prospect:
        """Return what *node*'s table would change; nothing changes yet, so another thread may ask.

        A peer whose encapsulation changed, or its public key, is another peer: its keys and counters go, and it gets a
        new number.  If its configured host is the same, its resolved address stays.  But a peer at the same endpoint
        with a key that no other peer had or has is the same host with a replaced key: it stays.

        If network and node have not changed, a peer that is the same object as before has not changed either: reading a
        peers file again keeps the object of every peer whose section is the same.
        """
        change, updates = RosterChange([], [], [], [], []), list[Update]()
        by_name, by_number, last = dict(self.by_name), dict(self.by_number), self._last
        former = self.node
        is_alike = (
            former is not None and former.own == node.own and former.table.network == node.table.network
        )
        wanted = node.tunnels
        formerly: dict[str, Remote] = {}
        for name, remote in self.by_name.items():
            if not self._stays(remote, wanted.get(name), node, is_alike=is_alike):
                change.removed.append(remote)
                formerly[name] = remote
                del by_name[name], by_number[remote.number]
        for name, tunnel in wanted.items():
            preshared_key = node.preshared_keys.get(name)
            known = by_name.get(name)
            if known is None:
                last += 1
                known = Remote(
                    *(last, tunnel.peer, preshared_key, tunnel.encapsulation),
                    *(tunnel.ends, tunnel.macs, tunnel.endpoint),
                )
                if name in formerly:
                    _leave_where_it_was(known, formerly[name])
                by_name[name] = by_number[last] = known
                change.added.append(known)
                change.commands.append(_set_peer(known))
                continue
            if is_alike and tunnel.peer is known.peer and preshared_key == known.preshared_key:
                continue
            updates.append(Update(known, tunnel, preshared_key))
            after = replace(known, peer=tunnel.peer, ends=tunnel.ends, macs=tunnel.macs)
            if _set_peer(known) != (command := _set_peer(after)):
                change.commands.append(command)
            if tunnel.endpoint != known.configured:
                change.new_endpoint.append(known)
            if preshared_key != known.preshared_key:
                change.new_preshared_key.append(known)
            if tunnel.peer.public_key != known.peer.public_key:
                change.new_public_key.append(known)
        added, removed = self._compare_routes(node, by_name)
        change.commands.extend(_pieces(added, removed))
        change.commands.extend(RemovePeer(remote.number) for remote in change.removed)
        return Prospect(node, change, by_name, by_number, last, updates)

    def _stays(self, remote: Remote, tunnel: Tunnel | None, node: Node, *, is_alike: bool) -> bool:
        """Return whether *remote* is the peer of *tunnel*; *is_alike* if network and node have not changed."""
        if tunnel is None:
            return False
        if is_alike and tunnel.peer is remote.peer:
            return True
        is_same = tunnel.peer.public_key == remote.peer.public_key or self._has_replaced(tunnel, remote, node)
        return is_same and tunnel.encapsulation is remote.encapsulation

    def _has_replaced(self, tunnel: Tunnel, remote: Remote, node: Node) -> bool:
        """Return whether *remote* is the same host with another key of its own, and not another host with its name."""
        was, is_now = remote.peer.public_key, tunnel.peer.public_key
        if was is None or is_now is None or self.node is None or not remote.encapsulation.is_encrypted:
            return False
        is_new = self.node.table.find_by_public_key(is_now) is None
        return is_new and tunnel.endpoint == remote.configured and node.table.find_by_public_key(was) is None

    def _compare_routes(
        self, node: Node, by_name: dict[str, Remote]
    ) -> tuple[list[tuple[Prefix, int]], list[Prefix]]:
        """Return the prefixes that lead elsewhere than before, with the number of their peer, and those that are gone.

        Routes of an unchanged section are the same objects, which is checked first: comparing prefixes costs a hundred
        times as much.
        """
        former = self.node
        old = () if former is None else former.table.routes
        before = {} if former is None else _numbers(former, self.by_name)
        after = _numbers(node, by_name)
        moved = {name for name, number in after.items() if before.get(name) != number}
        stay = set(map(id, old)) & set(map(id, node.table.routes))
        was = {route[0]: before[route[1]] for route in old if id(route) not in stay or route[1] in moved}
        will_be = {
            route[0]: after[route[1]]
            for route in node.table.routes
            if id(route) not in stay or route[1] in moved
        }
        added = [(prefix, number) for prefix, number in will_be.items() if was.get(prefix) != number]
        return added, [prefix for prefix in was if prefix not in will_be]

    def everything(self) -> Iterator[Command]:
        """Yield the commands for a new forwarder about the peers and their prefixes."""
        for remote in self.by_number.values():
            yield _set_peer(remote)
        if self.node is not None:
            numbers = _numbers(self.node, self.by_name)
            yield from _pieces([(prefix, numbers[name]) for prefix, name in self.node.table.routes], [])

    def owner(self, address: Address) -> int | None:
        """Return the number of the peer whose subnets contain *address*, OWN for this node; None if there is none."""
        if self.node is None or (name := self.node.table.owners.lookup(address)) is None:
            return None
        return OWN if name == self.node.own.name else self.by_name[name].number

    def places(self) -> Iterator[Command]:
        """Yield the commands for a new forwarder about the known addresses of peers."""
        for remote in self.by_number.values():
            endpoint = remote.heard_at or remote.endpoint
            if endpoint is not None:
                yield SetEndpoint(remote.number, endpoint, "configuration")

    def names_by_host(self) -> dict[str, str]:
        """Return, by underlay address, the name of a peer that is configured there or was heard from there."""
        return {
            sockaddr[0]: name
            for name, remote in self.by_name.items()
            for sockaddr in (remote.heard_at, remote.endpoint, *remote.resolved)
            if sockaddr is not None
        }

    def endpoints(self, node: Node) -> Iterator[tuple[str, Sockaddr]]:
        """Yield every known underlay address of a peer of *node*, whose table need not be in force, with the peer's
        name.

        If a peer's endpoint changes in that table, only the addresses that its host was resolved to stay known.
        """
        for name, tunnel in node.tunnels.items():
            remote, endpoint = self.by_name.get(name), tunnel.endpoint
            if remote is None:
                continue
            known: set[Sockaddr | None] = {*_resolved_for(endpoint, remote)}
            if endpoint in {None, remote.configured}:
                known = {remote.endpoint, remote.heard_at, *remote.resolved}
            for sockaddr in known:
                if sockaddr is not None:
                    yield name, sockaddr


def _numbers(node: Node, by_name: dict[str, Remote]) -> dict[str, int]:
    """Return the number of each peer of *node*'s table by its name."""
    return {name: remote.number for name, remote in by_name.items()} | {node.own.name: OWN}


def _leave_where_it_was(remote: Remote, former: Remote) -> None:
    """Set *remote* to the address that the configured endpoint of *former* was resolved to, if the host is the same.

    Other addresses of *former* do not count, because an unencrypted peer is only where the peers file says.
    """
    remote.resolved = _resolved_for(remote.configured, former)
    addresses = [sockaddr[0] for sockaddr in remote.resolved]
    if addresses:
        last = None if former.endpoint is None else former.endpoint[0]
        remote.endpoint = remote.resolved[addresses.index(last) if last in addresses else 0]


def _resolved_for(endpoint: Endpoint | None, former: Remote) -> tuple[Sockaddr, ...]:
    """Return the addresses of *endpoint* that *former* knows: it has the same host, perhaps at another port."""
    if endpoint is None or former.configured is None or endpoint.host != former.configured.host:
        return ()
    return tuple(_at_port(sockaddr, endpoint.port) for sockaddr in former.resolved)


def _at_port(sockaddr: Sockaddr, port: int) -> Sockaddr:
    return (sockaddr[0], port) if len(sockaddr) == 2 else (sockaddr[0], port, *sockaddr[2:])


def _set_peer(remote: Remote) -> SetPeer:
    """Return the command about *remote* for the forwarder."""
    peer, is_encrypted = remote.peer, remote.encapsulation.is_encrypted
    sources = () if is_encrypted else peer.sources
    return SetPeer(
        remote.number,
        float(peer.keepalive) if is_encrypted else 0.0,  # without encryption a keepalive cannot be recognized
        remote.encapsulation.name,
        [(prefix.network_address.packed, prefix.prefixlen) for prefix in sources],
        remote.ends,
        list(remote.macs),
        [each.packed for each in peer.addresses] if remote.macs else [],
        **keys_for(SetPeer, peer),
    )


def _pieces(added: Iterable[tuple[Prefix, int]], removed: Iterable[Prefix]) -> Iterator[Command]:
    """Yield the messages of one change; none for no change."""
    adds = [(prefix.network_address.packed, prefix.prefixlen, number) for prefix, number in added]
    removes = [(prefix.network_address.packed, prefix.prefixlen) for prefix in removed]
    step = ROUTES_PER_MESSAGE
    pieces = [Routes([], removes[at : at + step], False) for at in range(0, len(removes), step)]
    pieces += [Routes(adds[at : at + step], [], False) for at in range(0, len(adds), step)]
    if pieces:
        last = pieces.pop()
        yield from pieces
        yield Routes(last.add, last.remove, True)
