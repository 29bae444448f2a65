"""From options and files to one settled configuration of this node.

Everything is decided here before the host is touched; an error is one ConfigError.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import TYPE_CHECKING

from overlay import defaults
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.missing_programs import find_missing
from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.errors import ConfigError, NotHereError
from overlay.hooks.happening import HOOKS
from overlay.host.interfaces import is_own_address
from overlay.host.ownership import number_of
from overlay.host.plan import HostPlan
from overlay.host.sockets.uapi_socket import DIRECTORY
from overlay.keys.files import PRIVATE, load_preshared_key, load_private_key, replace_key
from overlay.keys.own import find_by_keys, load_next_key, next_path
from overlay.keys.permissions import describe_readers_of, describe_writers_of
from overlay.services.delivery import plan_delivery
from overlay.tunnels import make_tunnels, overheads_of
from overlay.wire.ip import IPV6_MINIMUM_MTU, MAXIMUM_IP
from peers.addresses import host_prefix
from peers.encapsulation import is_encrypted
from peers.errors import TableError, format_keys
from peers.garbage import growing
from peers.mac import derived_mac
from peers.peer import TAP, format_public_key, preshared_key_file_for
from peers.prefixes import PrefixMap
from peers.stores import FILE, Location
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from overlay.diagnosis.finding import Finding
    from overlay.encap.encapsulation import Encapsulation
    from overlay.host.plan import IPAddress, IPInterface, IPNetwork
    from overlay.tunnels import Tunnel
    from overlay.uapi.amended import Merged
    from overlay.wire.addresses import Sockaddr
    from peers.addresses import Address
    from peers.listening import Listening
    from peers.peer import Peer
    from peers.stores.store import Store
    from peers.table import Table

# Ours
# When policy routes need a mark and none is configured.  A rule or a firewall for another program's mark would
# also match our datagrams.  So it is not 51820 (0xca6c), which wg-quick uses, and it has none of the bits that other
# programs test separately: kube-proxy 0x4000 and 0x8000, Cilium 0x0f00, mwan3 0x3f00, Tailscale 0xff0000, Calico
# 0xffff0000.
DEFAULT_FWMARK = 0xD0
UNDERLAY_MTU = 1500  # if none is known
MINIMUM_MTU = IPV6_MINIMUM_MTU
LISTEN_ADDRESSES = 16  # one message to the forwarder carries twice as many descriptors
EITHER = frozenset(
    {("", 4), ("", 6)}
)  # of a peer that may be anywhere: no host, and the version of its address
NAMED = 5  # peers in a note
NEARLY_EVERYTHING = 1  # prefixes of this length or shorter contain the underlay, whatever endpoints are known


@dataclass(frozen=True, slots=True)
class Options:
    """The options of ``overlay up``."""

    peers: Location
    key: Path
    interface: str
    node: str | None = None
    fix_sysctl: bool = False
    lanes: int | None = None  # by the number of processors
    masquerade: bool = False
    forward: bool = False
    subnet_file: Path | None = None
    docker_options: Path | None = None
    endpoint: str | None = None
    encapsulation: str | None = None
    docker: bool = False
    hooks: Path = HOOKS
    metrics: Listening | None = None
    wg_directory: Path = DIRECTORY  # where `wg` looks for sockets
    is_bare: bool = False  # there is no peers file and no key file: `wg` configures everything


@dataclass(frozen=True)
class Node:
    """A node in one peer table: who it is, and what it needs to reach each other peer.

    What depends on every peer is computed once, by settle().

    *location* is where the table comes from.  *private_key* of a node without a key file is random: none of its
    tunnels is encrypted.  If `wg` changed something, *merged* has the result, and *as_filed* is the node as in the
    peers file.  A node that *is_bare* has no peers file: `wg` alone configures it, and another program sets its
    host up.
    """

    private_key: PrivateKey
    table: Table
    own: Peer
    preshared_keys: dict[str, bytes] = field(repr=False)  # by peer name
    key_files: tuple[Path, ...] = ()  # the file of the private key and those of preshared keys
    next_key: PrivateKey | None = None  # while the private key is being replaced
    filed: Node | None = field(default=None, repr=False)
    merged: Merged | None = field(default=None, repr=False)
    location: Location = field(default_factory=lambda: Location(FILE, defaults.PEERS))
    is_bare: bool = False
    is_down: bool = False  # a bare one whose interface was not up yet: nothing is sent unasked

    @property
    def as_filed(self) -> Node:
        """Return the node as in the peers file."""
        return self.filed or self

    def settle(self) -> None:
        """Compute what depends on every peer now, while no packet or request waits."""
        _ = self.tunnels, self.others, self.encapsulations, self.clear_note

    @cached_property
    def tunnels(self) -> dict[str, Tunnel]:
        """The tunnels with all peers except this node, by name in the order of the file."""
        return make_tunnels(self.table, self.own)

    @cached_property
    def others(self) -> list[Peer]:
        """All peers except this node, in the order of the file."""
        return [tunnel.peer for tunnel in self.tunnels.values()]

    @property
    def private_keys(self) -> tuple[PrivateKey, ...]:
        """Return the keys that this node answers to; the first is the one in the peers file, which is the same on all
        hosts.
        """
        if self.next_key is None:
            return (self.private_key,)
        keys = self.private_key, self.next_key
        return keys if self.own.public_key != self.next_key.public else keys[::-1]

    @property
    def is_tap(self) -> bool:
        """Return whether the device carries Ethernet frames."""
        return self.table.network.device == TAP

    @property
    def macs(self) -> tuple[bytes, ...]:
        """The Ethernet addresses that are only at this node, that of its tap first; none with a tun."""
        return (self.own.macs or (derived_mac(self.own.name),)) if self.is_tap else ()

    @cached_property
    def encapsulations(self) -> list[Encapsulation]:
        """Return those in use, in the order of the registry; without other peers, the one that a peer would have."""
        names = {tunnel.encapsulation.name for tunnel in self.tunnels.values()}
        names = names or {own_encapsulation(self.table.network, self.own)}
        return [each for name, each in ENCAPSULATIONS.items() if name in names]

    @cached_property
    def clear_note(self) -> str | None:
        """Return a sentence on the peers without encryption; None if there are none."""
        clear = {
            name: tunnel.encapsulation
            for name, tunnel in self.tunnels.items()
            if not tunnel.encapsulation.is_encrypted
        }
        if not clear:
            return None
        names = list(clear)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        by = list(dict.fromkeys(each.name for each in clear.values()))
        if len(by) == 1:
            return f"traffic with {', '.join(names[:NAMED])}{more} is not encrypted: the encapsulation is {by[0]}"
        listed = ", ".join(f"{name} ({clear[name].name})" for name in names[:NAMED])
        return f"traffic with {listed}{more} is not encrypted"


def describe_files(options: Options, node: Node) -> list[Finding]:
    """Return a finding on each file of *node* that others can read or write at present.  Blocks."""
    if options.is_bare:
        return []
    store = options.peers.open()
    return [*describe_writers_of(store.files()), *describe_readers_of((*node.key_files, *store.secrets()))]


def settle(
    store: Store,
    key: PrivateKey | None,
    options: Options,
    running: Peer | None = None,
    is_own: Callable[[Address], bool] = is_own_address,
) -> Node:
    """Read the peer table and return this node in it; *running* is what it was until now.

    *key* is None if this host has none; *is_own* tells whether this host has an address.
    """
    with growing():
        return _read(store, key, options, running, is_own)


def _read(
    store: Store,
    key: PrivateKey | None,
    options: Options,
    running: Peer | None,
    is_own: Callable[[Address], bool],
) -> Node:
    try:
        table = store.load()
    except TableError as error:
        raise ConfigError(str(error)) from None
    following = None if key is None or options.is_bare else load_next_key(options.key, options.interface)
    if running is not None:
        now = table.peers.get(running.name, running)
        ours = {each.public for each in (key, following) if each is not None}
        if now.public_key != running.public_key and now.public_key not in ours:
            raise ConfigError(
                f"the public_key of peers.{running.name}, which is this node, changed in {options.peers}: "
                "a new key takes effect only after a restart, or by `overlay rotate-key`"
            )
        if running.name in table.peers and running.public_key is None:
            # Which peer this node is does not change, whatever endpoints and keys the others get.
            keyed = None if key is None else table.find_by_public_key(key.public)
            if keyed is not None:
                raise ConfigError(
                    f"{options.key} is the key of peers.{keyed.name} in {options.peers}, but this node runs as "
                    f"{running.name}: restart the agent to run as that peer"
                )
            options = replace(options, node=running.name)
    own = find_own(table, key, options, is_own)
    if len(own.listen) > LISTEN_ADDRESSES:
        raise ConfigError(
            f"listen of peers.{own.name} in {options.peers} has {len(own.listen)} addresses: write at most "
            f"{LISTEN_ADDRESSES}, or none to listen on every address of this host"
        )
    missing = find_missing(table, own, store.files(), masquerade=options.masquerade)
    if missing is not None:
        raise ConfigError(str(missing))
    keys, files = _preshared_keys(table, own)
    files = [] if options.is_bare else [options.key, *files]
    if following is not None:
        files.append(next_path(options.key))
    node = Node(
        key or PrivateKey.generate(os.urandom),
        table,
        own,
        keys,
        tuple(files),
        following,
        location=options.peers,
        is_bare=options.is_bare,
    )
    node.settle()
    return node


def find_own(
    table: Table,
    key: PrivateKey | None,
    options: Options,
    is_own: Callable[[Address], bool] = is_own_address,
) -> Peer:
    """Return the peer that this node is: the one with its key, if there is one; ``--node`` must then agree.

    Otherwise it is a peer without a public key: that of ``--node``, or the one whose endpoint is an address of this
    host.
    """
    following = None if key is None or options.is_bare else load_next_key(options.key, options.interface)
    own = find_by_keys(table, key, following)
    keyless = [peer for peer in table.peers.values() if peer.public_key is None]
    if own is None and keyless:
        here = [peer for peer in keyless if _is_here(peer, options, is_own)]
        if len(here) == 1:
            return here[0]
        if options.node is None and (here or len(keyless) == len(table.peers)):
            found = "several endpoints" if here else "none of the endpoints"
            raise (ConfigError if here else NotHereError)(
                f"{found} in {options.peers} belong to this host, so it is not known which peer it is: "
                "name it with --node"
            )
    if key is None and (options.node is None or options.node in table.peers):
        key, _ = load_private_key(options.key)
    if own is None and key is not None:
        _refuse_public_key(key, table, options)
    if options.node is not None:
        named = table.peers.get(options.node)
        if named is None:
            known = ", ".join(sorted(table.peers)[:10])
            raise ConfigError(f"--node {options.node}: {options.peers} has no such peer; it has {known}")
        if named is not own:
            assert key is not None
            raise ConfigError(
                f"--node {options.node}: its public_key in {options.peers} is not that of {options.key}, "
                f"which is {format_public_key(key.public)}; correct one of them"
            )
    if own is None:
        assert key is not None
        raise ConfigError(
            f"no peer in {options.peers} has this host's public key {format_public_key(key.public)}: "
            f"add it, or use a private key other than {options.key} with --key"
        )
    return own


def _refuse_public_key(key: PrivateKey, table: Table, options: Options) -> None:
    """Raise ConfigError if *key*, which is not a peer's private key, has the text of a peer's public key."""
    for peer in table.peers.values():
        if peer.public_key is not None and key.is_written_as(peer.public_key):
            named = format_keys(("peers", peer.name))
            raise ConfigError(
                f"{options.key} contains the key that {options.peers} has as the public_key of {named}, so either a "
                "public key is in the place of a private key, or a private key is where everybody can read it: "
                f"{replace_key(options.key, PRIVATE)}, and write the public key that `overlay keygen` prints into "
                f"{named}"
            )


def _is_here(peer: Peer, options: Options, is_own: Callable[[Address], bool]) -> bool:
    if options.node is not None:
        return peer.name == options.node
    address = None if peer.endpoint is None else peer.endpoint.address
    return address is not None and is_own(address)


def holds_nearly_everything(node: Node) -> bool:
    """Return whether packets for the whole Internet, such as a query to a name server, go to a peer of *node*."""
    return not node.is_tap and any(
        prefix.prefixlen <= NEARLY_EVERYTHING for prefix, name in node.table.routes if name != node.own.name
    )


def plan_host(node: Node, mtu: int, endpoints: Iterable[tuple[str, Sockaddr]], interface: str) -> HostPlan:
    """Return how to set the host up, given the known pairs of peer name and underlay address.

    Only the network's prefixes are routed into a tap, where ARP finds the peers; nothing is on a node without an
    address, whose tap is a port of a bridge.  Routed into a tun are the network's prefixes, the other peers' subnets
    outside them, and the addresses of virtual services that this host does not have.  A prefix that contains an
    underlay endpoint would swallow our own datagrams, so it is routed by policy, which our mark bypasses.  An endpoint
    in a subnet of another peer is inside that peer's tunnel.
    """
    network = node.table.network
    owners = node.table.owners
    routes: list[IPNetwork] = list(network.prefixes) if node.own.addresses or not node.is_tap else []
    if not node.is_tap:
        routes += [prefix for prefix, name in node.table.outside if name != node.own.name]
    by_policy = {prefix for prefix in routes if prefix.prefixlen <= NEARLY_EVERYTHING}
    delivery = plan_delivery(node.table, node.own, interface, mtu, number_of(interface))
    if not node.is_tap:
        routes += [host_prefix(address) for address in delivery.routed]
    held = PrefixMap((prefix, prefix) for prefix in routes)
    for name, sockaddr in endpoints:
        address = ip_address(sockaddr[0].partition("%")[0])
        if held.lookup(address) is None:
            continue
        owner = owners.lookup(address)
        # The endpoint is not in another peer's subnet, so it belongs to the underlay.
        if owner is None or owner == name:
            by_policy.update(prefix for prefix, _ in held.covering(host_prefix(address)))
    fwmark = network.fwmark or (DEFAULT_FWMARK if by_policy else None)
    return HostPlan(
        mtu=mtu,
        addresses=tuple(map(_host_interface, node.own.addresses)),
        routes=tuple(prefix for prefix in routes if prefix not in by_policy),
        policy_routes=tuple(prefix for prefix in routes if prefix in by_policy),
        fwmark=fwmark,
        far_ends=node.others[0].addresses if network.point_to_point else (),
        mac=next(iter(node.macs), None),
        held=tuple(map(_host_interface, delivery.held)),
        rules=delivery.rules,
        limits=delivery.limits,
        settings=tuple(delivery.settings(interface).items()),
        returned=delivery.returned,
        inside=node.own.subnets if delivery.returned else (),
    )


def _host_interface(address: IPAddress) -> IPInterface:
    """Return *address* with its full length, so that it does not put the interface on a network."""
    return IPv4Interface(f"{address}/32") if address.version == 4 else IPv6Interface(f"{address}/128")


def yield_to_links(plan: HostPlan, links: Collection[IPNetwork]) -> HostPlan:
    """Return *plan* changed so that its policy routes leave out the networks *links*, which this host is on itself.

    A route for nearly everything is not a LAN, even if one over a point-to-point link has no gateway.
    """
    on_link = (each for each in plan.policy_routes if each in links and each.prefixlen > NEARLY_EVERYTHING)
    return replace(plan, on_link=tuple(on_link))


@dataclass(frozen=True, slots=True)
class Room:
    """The largest packet that the underlay takes, in bytes, and the reason, for people."""

    size: int
    reason: str


def plan_room(
    node: Node, endpoints: Iterable[tuple[str, Sockaddr]], underlay: Mapping[str, int | None]
) -> Room:
    """Return the largest packet whose datagrams fit the path to each of *node*'s peers, and the peer with the narrowest
    path.

    *underlay* has the MTUs of the paths to the hosts of *endpoints*; None means unknown.  For unknown values the worst
    is assumed: the narrowest path, and either family.
    """
    at: dict[str, set[tuple[str, int]]] = {}
    for name, sockaddr in endpoints:
        at.setdefault(name, set()).add((sockaddr[0], 4 if len(sockaddr) == 2 else 6))
    ways = [
        (mtu, host, name)
        for name, places in at.items()
        for host, _ in places
        if (mtu := underlay.get(host)) is not None
    ]
    narrowest, via, whose = min(ways, default=(UNDERLAY_MTU, "", ""))
    tunnels = []  # (size, is assumed, name, host, MTU, overhead)
    for name, tunnel in node.tunnels.items():
        for host, version in at.get(name, EITHER):
            overhead = tunnel.overheads[version]
            mtu = underlay.get(host)
            found = narrowest if mtu is None else mtu
            tunnels.append((min(found, MAXIMUM_IP) - overhead, mtu is None, name, host, found, overhead))
    if not tunnels:
        overhead = max(overheads_of(node.encapsulations[0], Ends(), is_tap=node.is_tap).values())
        tunnels.append((min(narrowest, MAXIMUM_IP) - overhead, True, "", "", narrowest, overhead))
    size, is_assumed, name, host, found, overhead = min(tunnels)
    if not ways:
        assumed = f"{found} assumed on the way to peers, less {overhead} for the tunnel"
        return Room(size, "no route to an endpoint is known" if at else assumed)
    if is_assumed and name:
        return Room(
            size, f"{found} on the way to {whose} at {via}, less {overhead} for the tunnel with {name}"
        )
    way = f"{name or whose} at {host or via}"
    alike = {each[2] for each in tunnels if (each[0], each[1], *each[4:]) == (size, False, found, overhead)}
    if len(alike) > 1 and alike == node.tunnels.keys():
        way = "every peer"  # wherever they move
    return Room(size, f"{found} on the way to {way}, less {overhead} for the tunnel")


def _preshared_keys(table: Table, own: Peer) -> tuple[dict[str, bytes], list[Path]]:
    """Return the keys by peer name, and their files."""
    keys: dict[str, bytes] = {}
    files: dict[Path, bytes] = {}
    for peer in table.peers.values():
        path = preshared_key_file_for(own, peer) if peer is not own else None
        if path is None or not is_encrypted(table.encapsulation_between(own, peer)):
            continue
        if path not in files:
            files[path] = bytes(load_preshared_key(path).secret)
        keys[peer.name] = files[path]
    return keys, list(files)
