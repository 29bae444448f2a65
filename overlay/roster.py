"""The other peers by number, as agent and forwarder name them to each other, and what a new table changes.

Computes only: what to tell the forwarder comes out as commands, in the order in which to tell it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from overlay.encap import wireguard
from overlay.encap.encapsulation import Ends
from overlay.link import OWN, ROUTES_PER_MESSAGE, Command, RemovePeer, Routes, SetEndpoint, SetPeer
from overlay.whereabouts import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.config import Node
    from overlay.encap.encapsulation import Encapsulation
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
    macs: tuple[bytes, ...] = ()  # that are at it and nowhere else, where the device is a tap
    configured: Endpoint | None = None  # where that tunnel is to end
    endpoint: Sockaddr | None = None  # where the forwarder sends to
    heard_at: Sockaddr | None = None  # where it was last heard from, authenticated
    resolved: tuple[Sockaddr, ...] = ()  # what the configured endpoint stands for
    resolved_at: float = 0.0
    resolve_error: str | None = None  # why the last look-up failed, as far as it did
    is_confirmed: bool = False  # it has been heard from under a keypair of this agent's life
    replays: int = 0  # initiations of it that were no newer than the last
    is_silent: bool = False  # packets were sent to it, and nothing comes back
    lost_at: float | None = None  # when it was found to be silent, or given up
    whereabouts: Whereabouts = field(default_factory=Whereabouts)


@dataclass(frozen=True, slots=True)
class Change:
    """What a new table changes, beyond the prefixes."""

    added: list[Remote]
    removed: list[Remote]
    new_endpoint: list[Remote]  # configured differently than before
    new_preshared_key: list[Remote]
    commands: list[Command]
    """For the forwarder: peers first, then the prefixes that lead to them, then the peers to forget."""


class Roster:
    """The remotes of the table in force.  A number is never given twice."""

    def __init__(self) -> None:
        self.by_number: dict[int, Remote] = {}
        self.by_name: dict[str, Remote] = {}
        self._last = OWN
        self._routes: dict[Prefix, int] = {}

    def change_to(self, node: Node) -> Change:
        """Make *node*'s table the one in force and return what is different.

        A peer whose public key or encapsulation changed is another peer: its keys and counters go, and it gets a new
        number.  Where its configured host is the same, it is still where that was resolved to.
        """
        change = Change([], [], [], [], [])
        wanted = {peer.name: peer for peer in node.others}
        formerly: dict[str, Remote] = {}
        for name, remote in list(self.by_name.items()):
            peer = wanted.get(name)
            if (
                peer is None
                or peer.public_key != remote.peer.public_key
                or node.encapsulation_of(peer) is not remote.encapsulation
            ):
                change.removed.append(remote)
                formerly[name] = remote
                del self.by_name[name], self.by_number[remote.number]
        for name, peer in wanted.items():
            preshared_key = node.preshared_keys.get(name)
            known = self.by_name.get(name)
            if known is None:
                self._last += 1
                encapsulation, endpoint = node.encapsulation_of(peer), node.endpoint_of(peer)
                known = Remote(
                    self._last,
                    peer,
                    preshared_key,
                    encapsulation,
                    node.ends_of(peer),
                    node.macs_of(peer),
                    endpoint,
                )
                if name in formerly:
                    _leave_where_it_was(known, formerly[name])
                self.by_name[name] = self.by_number[known.number] = known
                change.added.append(known)
                change.commands.append(_set_peer(known))
                continue
            before = known.peer.keepalive, known.peer.sources, known.ends, _station(known)
            known.ends, known.macs = node.ends_of(peer), node.macs_of(peer)
            after = replace(known, peer=peer)
            if before != (peer.keepalive, peer.sources, known.ends, _station(after)):
                change.commands.append(_set_peer(after))
            endpoint = node.endpoint_of(peer)
            if endpoint != known.configured:
                known.configured = endpoint
                change.new_endpoint.append(known)
            if preshared_key != known.preshared_key:
                known.preshared_key = preshared_key
                change.new_preshared_key.append(known)
            known.peer = peer
        routes = {
            prefix: OWN if name == node.own.name else self.by_name[name].number
            for prefix, name in node.table.routes
        }
        removed = [prefix for prefix in self._routes if prefix not in routes]
        added = [(prefix, number) for prefix, number in routes.items() if self._routes.get(prefix) != number]
        self._routes = routes
        change.commands.extend(_pieces(added, removed))
        change.commands.extend(RemovePeer(remote.number) for remote in change.removed)
        return change

    def everything(self) -> Iterator[Command]:
        """Yield what a new forwarder must be told to know the peers and their prefixes."""
        for remote in self.by_number.values():
            yield _set_peer(remote)
        yield from _pieces(self._routes.items(), [])

    def owner(self, address: Address) -> int | None:
        """Return the number of the peer whose subnets hold *address*, OWN if it is of this node; None if of nobody."""
        for length in range(address.max_prefixlen, -1, -1):
            number = self._routes.get(ip_network((address, length), strict=False))
            if number is not None:
                return number
        return None

    def places(self) -> Iterator[Command]:
        """Yield likewise where the peers are, as far as that is known."""
        for remote in self.by_number.values():
            endpoint = remote.heard_at or remote.endpoint
            if endpoint is not None:
                yield SetEndpoint(remote.number, endpoint, "configuration")

    def names_by_host(self) -> dict[str, str]:
        """Return the name of a peer by each underlay address that one is configured at or was heard from."""
        return {
            sockaddr[0]: name
            for name, remote in self.by_name.items()
            for sockaddr in (remote.heard_at, remote.endpoint, *remote.resolved)
            if sockaddr is not None
        }

    def endpoints(self, node: Node) -> Iterator[tuple[str, Sockaddr]]:
        """Yield every underlay address known of a peer of *node*, whose table need not be in force, with the peer's name.

        Where a peer's endpoint is another in that table, what its host was resolved to is all that stays known.
        """
        for peer in node.others:
            remote = self.by_name.get(peer.name)
            if remote is None:
                continue
            endpoint = node.endpoint_of(peer)
            known: set[Sockaddr | None] = {*_resolved_for(endpoint, remote)}
            if endpoint in {None, remote.configured}:
                known = {remote.endpoint, remote.heard_at, *remote.resolved}
            for sockaddr in known:
                if sockaddr is not None:
                    yield peer.name, sockaddr


def _leave_where_it_was(remote: Remote, former: Remote) -> None:
    """Have *remote* be where the configured endpoint of *former* was resolved to, if that is the same host.

    Where *former* was heard besides does not count: in the clear a peer is only where the peers file says.
    """
    remote.resolved = _resolved_for(remote.configured, former)
    addresses = [sockaddr[0] for sockaddr in remote.resolved]
    if addresses:
        last = None if former.endpoint is None else former.endpoint[0]
        remote.endpoint = remote.resolved[addresses.index(last) if last in addresses else 0]


def _resolved_for(endpoint: Endpoint | None, former: Remote) -> tuple[Sockaddr, ...]:
    """Return what *endpoint* stands for as far as *former* knows: it has the same host, at another port perhaps."""
    if endpoint is None or former.configured is None or endpoint.host != former.configured.host:
        return ()
    return tuple(_at_port(sockaddr, endpoint.port) for sockaddr in former.resolved)


def _at_port(sockaddr: Sockaddr, port: int) -> Sockaddr:
    return (sockaddr[0], port) if len(sockaddr) == 2 else (sockaddr[0], port, *sockaddr[2:])


def _set_peer(remote: Remote) -> SetPeer:
    peer, encapsulation = remote.peer, remote.encapsulation
    macs, addresses = _station(remote)
    if encapsulation.is_encrypted:
        keepalive = float(peer.keepalive)
        return SetPeer(remote.number, keepalive, encapsulation.name, macs=macs, addresses=addresses)
    sources = [(prefix.network_address.packed, prefix.prefixlen) for prefix in peer.sources]
    ends = remote.ends
    # No keepalive, which nobody would know as such.
    link = ends.identifier, ends.own_mac, ends.mac, ends.has_checksum, ends.has_sequence
    return SetPeer(remote.number, 0.0, encapsulation.name, sources, *link, macs, addresses)


def _station(remote: Remote) -> tuple[list[bytes], list[bytes]]:
    """Return the Ethernet addresses of *remote* and the IP addresses that the first of them has."""
    return list(remote.macs), [each.packed for each in remote.peer.addresses] if remote.macs else []


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
