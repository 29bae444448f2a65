"""Who takes part in flannel's network, and the peers file that results.

An overlay agent is identified by its public key, and a host that runs flanneld by its address, as in flanneld; in a
network with the wireguard backend both have a key.  Tunnels with flanneld hosts have the encapsulation of the backend,
and agents use WireGuard among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from peers.addresses import host_prefix
from peers.encapsulation import PORTS, WIREGUARD
from peers.mac import derived_mac, format_mac
from peers.peer import format_public_key
from peers.prefixes import PrefixMap, place_of
from peers.stores.etcd.document import header
from peers.stores.etcd.layout import MalformedError, show
from peers.stores.etcd.members import unique_name
from peers.stores.etcd.slices import each_in, finish
from peers.stores.flannel.config import VXLAN
from peers.stores.flannel.lease import AgentData, Lease
from peers.stores.remark import StoreRemark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from ipaddress import IPv4Address, IPv4Network

    from peers.stores.etcd.messages import KeyValue
    from peers.stores.etcd.slices import Slices
    from peers.stores.flannel.config import Config
    from peers.stores.flannel.lease import Keys

# Ours

Identity: TypeAlias = "bytes | IPv4Address"


@dataclass(frozen=True, slots=True)
class Placed:
    """A lease and where it stands: revisions and the lease in etcd as etcd has them, 0 for a reservation."""

    key: bytes
    subnet: IPv4Network
    value: Lease
    created: int
    modified: int
    lease: int

    @property
    def identity(self) -> Identity:
        """What tells its host from others."""
        agent = self.value.agent
        return agent.public_key if agent is not None else self.value.public_key or self.value.address


@dataclass(frozen=True, slots=True)
class Members:
    """The leases of a network: all that can be read, those that count, and why the others do not."""

    everybody: tuple[Placed, ...] = ()
    accepted: tuple[Placed, ...] = ()
    left_out: tuple[StoreRemark, ...] = ()


@dataclass(frozen=True, slots=True)
class Own:
    """The host itself, with the *subnets* that it holds, none as long as it has not got any."""

    agent: AgentData
    address: IPv4Address | None
    subnets: tuple[IPv4Network, ...] = ()

    @property
    def identities(self) -> set[Identity]:
        """Whatever its lease may be known by."""
        found: tuple[Identity | None, ...] = (self.agent.public_key, self.agent.other_key, self.address)
        return {each for each in found if each is not None}

    def has(self, placed: Placed) -> bool:
        """Return whether a lease is this host's, under either of its keys."""
        agent, identities = placed.value.agent, self.identities
        return placed.identity in identities or (agent is not None and agent.other_key in identities)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a table is made of, at one moment; *departed* are leases that have just gone."""

    config: Config
    members: Members
    own: Own | None = None
    departed: tuple[Placed, ...] = ()


@dataclass(frozen=True, slots=True)
class Composed:
    """A peers file, and which host each of its sections is for, by the number of its first line from 1."""

    text: str
    hosts: Mapping[int, Identity] = field(default_factory=dict)

    def host_at(self, line: int) -> Identity | None:
        """Return the host whose section has the *line*; None where none has."""
        first = max((each for each in self.hosts if each <= line), default=None)
        return None if first is None else self.hosts[first]


def own_mac(public_key: bytes) -> bytes:
    """Return the Ethernet address of an agent's end of VXLAN tunnels."""
    return derived_mac(format_public_key(public_key))


def read_placed(keys: Keys, kv: KeyValue) -> Placed | None:
    """Return the lease that *kv* is; None where it is another key.  Raises MalformedError."""
    subnet = keys.subnet_of(kv.key)
    if subnet is None:
        return None
    return Placed(kv.key, subnet, Lease.parse(kv.value), kv.created, kv.modified, kv.lease)


def read_members(keys: Keys, kvs: Iterable[KeyValue], config: Config) -> Members:
    """Return who is in the network with these keys."""
    return finish(reading_members(keys, kvs, config))


def reading_members(keys: Keys, kvs: Iterable[KeyValue], config: Config) -> Slices[Members]:
    """Return who is in the network with these keys, which must not change meanwhile."""
    everybody: list[Placed] = []
    left_out: list[StoreRemark] = []
    for kv, is_next in each_in(kvs):
        if is_next:
            yield
        try:
            placed = read_placed(keys, kv)
        except MalformedError as error:
            left_out.append(StoreRemark(f"{show(kv.key)} is left out: {error}"))
        else:
            everybody += [placed] if placed is not None else []
    everybody.sort(key=lambda placed: (placed.created, placed.key))
    accepted: list[Placed] = []
    carried = PrefixMap([(config.network, True)])
    owners: PrefixMap[str] = PrefixMap()
    macs: dict[bytes, Placed] = {}
    for placed, is_next in each_in(everybody):
        if is_next:
            yield
        reason = _objection(placed, config, carried, owners, macs)
        if reason is not None:
            left_out.append(
                StoreRemark(f"the lease of {placed.subnet} ({placed.value.address}) is left out: {reason}")
            )
            continue
        owners.insert(placed.subnet, str(placed.value.address))
        if placed.value.mac is not None:
            macs[placed.value.mac] = placed
        accepted.append(placed)
    return Members(tuple(everybody), tuple(accepted), tuple(left_out))


def _objection(
    placed: Placed,
    config: Config,
    carried: PrefixMap[bool],
    owners: PrefixMap[str],
    macs: Mapping[bytes, Placed],
) -> str | None:
    """Return why a lease does not count.  What would spoil the whole table is found here, where it costs little."""
    value = placed.value
    if value.agent is None and value.backend != config.backend:
        return f"its backend is {show(value.backend)}, and the network's {config.backend}"
    if value.vni is not None and value.vni != config.vni:
        return f"its VNI is {value.vni}, and the network's {config.vni}"
    if not carried.covers(place_of(placed.subnet)):  # it would take the packets of other networks
        return f"it is not in Network {config.network}"
    if value.address in config.network:
        return f"its PublicIP is in Network {config.network}, and could be reached only through the tunnel itself"
    same = macs.get(value.mac) if value.mac is not None else None
    if same is not None and same.identity != placed.identity:
        return f"its VtepMAC is also that of {same.value.address}"
    holder = next((name for _, name in owners.covering(placed.subnet)), None)
    if holder is not None or owners.has_inside(placed.subnet):
        return f"it overlaps a prefix of {holder or 'somebody'}"
    return None


def compose(snapshot: Snapshot, refused: Collection[Identity] = ()) -> Composed:
    """Return the peers file of the whole network, for this host, without the hosts that are *refused*.

    This host's section has what it holds, whatever etcd has of it.  Agents that have just departed keep an address
    and no subnet: what looks like leaving may be a lease that is handed over, and their sessions go on then.
    """
    config, own = snapshot.config, snapshot.own
    sections = _Sections(config)
    hosts: dict[Identity, list[Placed]] = {}
    for placed in snapshot.members.accepted:
        if placed.identity in refused or (own is not None and own.has(placed)):
            continue
        if own is not None and placed.value.agent is None and placed.value.address == own.address:
            continue  # that flanneld had on this host
        hosts.setdefault(placed.identity, []).append(placed)
        sections.used.insert(placed.subnet, True)
    if own is not None:
        subnets = [each for each in own.subnets if not sections.overlaps(each)]
        sections.add_own(own, subnets)
    for identity, leases in hosts.items():
        newest = max(leases, key=lambda placed: placed.modified)
        sections.add(identity, newest, [placed.subnet for placed in leases])
    for placed in snapshot.departed:
        is_mine = own is not None and own.has(placed)
        is_back = placed.identity in hosts or is_mine or placed.identity in refused
        if placed.value.agent is not None and not is_back and not sections.overlaps(placed.subnet):
            sections.add(placed.identity, placed, [], placed.subnet.network_address)
            sections.used.insert(host_prefix(placed.subnet.network_address), True)
            hosts[placed.identity] = [placed]
    return sections.composed()


class _Sections:
    """A peers file in the making."""

    def __init__(self, config: Config) -> None:
        self.used: PrefixMap[bool] = PrefixMap()
        self._config = config
        self._lines = list(_network(config))
        self._hosts: dict[int, Identity] = {}
        self._names: set[str] = set()

    def overlaps(self, subnet: IPv4Network) -> bool:
        """Return whether something has addresses in common with *subnet*."""
        return any(self.used.covering(subnet)) or self.used.has_inside(subnet)

    def add_own(self, own: Own, subnets: list[IPv4Network]) -> None:
        """Add the section of this host; without a subnet it has an address that no other host has."""
        for subnet in subnets:
            self.used.insert(subnet, True)
        free = (each for each in self._config.subnets() if not self.overlaps(each))
        place = subnets[0] if subnets else next(free, self._config.network)
        address = None if subnets else place.network_address
        if address is not None:
            self.used.insert(host_prefix(address), True)
        self._begin(own.agent.public_key, own.agent.name, place)
        self._say_agent(own.agent, own.address)
        self._say_subnets(subnets, address)

    def add(
        self,
        identity: Identity,
        placed: Placed,
        subnets: list[IPv4Network],
        address: IPv4Address | None = None,
    ) -> None:
        """Add the section of the host that has the lease *placed*."""
        value, backend = placed.value, self._config.backend
        name = value.agent.name if value.agent is not None else f"flannel-{value.address}"
        self._begin(identity, name, placed.subnet)
        if value.agent is not None:
            self._say_agent(value.agent, value.address)
        elif backend == WIREGUARD:
            assert value.public_key is not None
            self._lines.append(f'public_key = "{format_public_key(value.public_key)}"')
            self._lines.append(f'endpoint = "{value.address}:{value.port or self._config.port}"')
        else:
            self._lines += [f'encapsulation = "{backend}"', f'endpoint = "{value.address}"']
            if value.mac is not None:
                self._lines.append(f'mac = ["{format_mac(value.mac)}"]')
        self._say_subnets(subnets, address)

    def composed(self) -> Composed:
        """Return what was added."""
        return Composed("\n".join([*self._lines, ""]), self._hosts)

    def _begin(self, identity: Identity, name: str, subnet: IPv4Network) -> None:
        name = unique_name(name, subnet, self._names)
        self._names.add(name)
        self._lines.append("")
        self._hosts[len(self._lines) + 1] = identity
        self._lines.append(header(name))

    def _say_agent(self, agent: AgentData, address: IPv4Address | None) -> None:
        self._lines.append(f'public_key = "{format_public_key(agent.public_key)}"')
        if address is not None:
            self._lines.append(f'endpoint = "{address}:{agent.port}"')
        if self._config.backend == VXLAN:
            self._lines.append(f'mac = ["{format_mac(own_mac(agent.public_key))}"]')
        if self._config.keepalive:
            self._lines.append(f"keepalive = {self._config.keepalive}")

    def _say_subnets(self, subnets: list[IPv4Network], address: IPv4Address | None) -> None:
        if subnets:
            listed = ", ".join(f'"{subnet}"' for subnet in subnets)
            self._lines.append(f"subnets = [{listed}]")
        if address is not None:
            self._lines.append(f'address = "{address}"')


def _network(config: Config) -> Iterator[str]:
    yield "[network]"
    yield f'prefix = "{config.network}"'
    if config.port is not None:
        yield f"{PORTS[config.backend].key} = {config.port}"
    if config.backend == VXLAN:
        yield f"vni = {config.vni}"
    if config.mtu is not None:
        yield f"mtu = {config.mtu}"
