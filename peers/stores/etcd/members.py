"""Who takes part, from the keys of a network: contradictions are settled the same way on every host.

If two nodes claim the same subnet, the one whose key was created earlier keeps it.  What the document says takes
precedence over both.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from peers.addresses import host_prefix
from peers.errors import KeyProblem
from peers.peer import PEER_NAME, default_addresses, format_public_key
from peers.peer_section import PEERS
from peers.prefixes import PrefixMap, place_of
from peers.stores.etcd import remarks
from peers.stores.etcd.document import free_address, header
from peers.stores.etcd.layout import MalformedError, NodeValue, Reservation, format_subnet, show
from peers.stores.etcd.slices import each_in, finish
from peers.stores.remark import StoreRemark
from peers.table import Table
from peers.toml_section import Section

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from peers.addresses import Prefix
    from peers.stores.etcd.document import Document
    from peers.stores.etcd.layout import Keys
    from peers.stores.etcd.messages import KeyValue
    from peers.stores.etcd.signatures import Trust
    from peers.stores.etcd.slices import Slices
    from peers.stores.membership import OwnKeys

# Ours
NAME_SIZE = 63
MOST_REMARKS = 5  # about nodes that are left out; the rest is a number


@dataclass(frozen=True, slots=True)
class Placed:
    """A node and the place of its value: revisions and lease as etcd has them."""

    key: bytes
    value: NodeValue
    created: int
    modified: int
    lease: int


@dataclass(frozen=True, slots=True)
class Members:
    """The nodes of a network: all that can be read, those of them that take part, and why the others do not.

    Those of the others that are *unvouched* have no one to vouch for them, in a network that is signed.
    """

    everybody: tuple[Placed, ...] = ()
    accepted: tuple[Placed, ...] = ()
    unvouched: tuple[Placed, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    left_out: tuple[StoreRemark, ...] = ()

    def of(self, own: OwnKeys) -> list[Placed]:
        """Return the keys of the node that answers to *own*, the oldest first."""
        return [each for each in self.everybody if each.value.is_of(own)]


@dataclass(frozen=True, slots=True)
class Own:
    """The host itself, as it takes part: the *subnets* that it holds, none as long as it has not got any."""

    name: str
    keys: OwnKeys
    public_key: bytes
    """That of *keys* which the others are told."""
    subnets: tuple[Prefix, ...] = ()
    endpoints: tuple[str, ...] = ()
    encapsulation: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a table is made of, at one moment; those who have just *departed* were members."""

    document: Document
    members: Members
    own: Own | None = None
    departed: tuple[NodeValue, ...] = ()


def read_members(
    keys: Keys, kvs: Iterable[KeyValue], document: Document, trust: Trust | None = None
) -> Members:
    """Return who is in the network with these keys."""
    return finish(reading_members(keys, kvs, document, trust))


def reading_members(
    keys: Keys, kvs: Iterable[KeyValue], document: Document, trust: Trust | None = None
) -> Slices[Members]:
    """Return who is in the network with these keys, which must not change meanwhile."""
    everybody: list[Placed] = []
    reservations: list[Reservation] = []
    left_out: list[StoreRemark] = []
    vouched: dict[str, KeyValue] = {}
    for kv, is_next in each_in(kvs):
        if is_next:
            yield
        folder, name = keys.split(kv.key)
        try:
            if folder == "nodes":
                everybody.append(_place(name, kv))
            elif folder == "reserved":
                reservations.append(Reservation.parse(name, kv.value))
            elif folder == "vouched":
                vouched[name] = kv
        except MalformedError as error:
            left_out.append(StoreRemark(f"{show(kv.key)} is left out: {error}"))
    everybody.sort(key=lambda placed: (placed.created, placed.key))
    if trust is not None:
        trust.learn(vouched)
    unvouched: list[Placed] = []
    accepted = yield from _settle(everybody, document, left_out, trust, unvouched)
    return Members(tuple(everybody), tuple(accepted), tuple(unvouched), tuple(reservations), tuple(left_out))


def read_departed(keys: Keys, kvs: Iterable[KeyValue]) -> tuple[NodeValue, ...]:
    """Return the nodes among keys that are gone."""
    departed = []
    for kv in kvs:
        folder, name = keys.split(kv.key)
        with contextlib.suppress(MalformedError):
            if folder == "nodes":
                departed.append(_place(name, kv).value)
    return tuple(departed)


@lru_cache(maxsize=1 << 17)  # more than there are peers, or reading all in their order would find none
def _place(name: str, kv: KeyValue) -> Placed:
    """Return the node of a key, the same object as before: what is compared is then seldom more than its identity."""
    return Placed(kv.key, NodeValue.parse(name, kv.value), kv.created, kv.modified, kv.lease)


def _settle(
    everybody: list[Placed],
    document: Document,
    left_out: list[StoreRemark],
    trust: Trust | None,
    unvouched: list[Placed],
) -> Slices[list[Placed]]:
    static = {peer.public_key: peer.name for peer in document.peers.values()}
    owners: PrefixMap[str] = PrefixMap()
    carried = PrefixMap((prefix, True) for prefix in document.network.prefixes)
    accepted = []
    for placed, is_next in each_in(everybody):
        if is_next:
            yield
        value = placed.value
        reason = None
        objection = trust.objection(value) if trust is not None else None
        if objection is not None:
            unvouched.append(placed)
        if value.public_key in static:
            reason = f"its public key is that of peers.{static[value.public_key]} in the document"
        elif trust is not None and objection is not None:
            left_out.append(remarks.describe_left_out(trust.run, value, objection))
            continue
        for subnet in value.subnets if reason is None else ():
            if not carried.covers(place_of(subnet)):  # it would take the packets of other networks
                reason = f"{subnet} is not in the network's prefix"
                break
            holder = _overlapping(document.taken, subnet) or _overlapping(owners, subnet)
            if holder is not None:
                reason = f"{subnet} overlaps a prefix of {holder}"
                break
        if reason is not None:
            left_out.append(StoreRemark(f"the node {value.name} ({value.subnets[0]}) is left out: {reason}"))
            continue
        for subnet in value.subnets:
            owners.insert(subnet, f"the node {value.name}")
        accepted.append(placed)
    return accepted


def _overlapping(owners: PrefixMap[str], subnet: Prefix) -> str | None:
    """Return the name at a prefix that has addresses in common with *subnet*; None if there is none."""
    found = next((name for _, name in owners.covering(subnet)), None)
    if found is None and owners.has_inside(subnet):
        return "something in it"
    return found


def compose(document: Document, members: Members, own: Own | None, departed: Iterable[NodeValue] = ()) -> str:
    """Return the peers file of the whole network, for this host.

    *own* comes from this host itself, whatever etcd has of it, so that its subnets stay while they are claimed again.
    The nodes that have just *departed* keep an address and no subnet: what looks like leaving may be a lease that is
    handed over, and their sessions go on then.
    """
    names = set(document.peers)
    used: PrefixMap[str] = PrefixMap()
    sections: list[str] = []
    mine = tuple(own.keys) if own is not None else ()
    others: dict[bytes, list[NodeValue]] = {}
    for placed in members.accepted:
        if not placed.value.is_of(mine):
            others.setdefault(placed.value.public_key, []).append(placed.value)
            for subnet in placed.value.subnets:
                used.insert(subnet, placed.value.name)
    if own is not None:
        name = own.name if own.name not in names else f"{own.name[:50]}-{own.public_key[:4].hex()}"
        subnets = tuple(subnet for subnet in own.subnets if _overlapping(used, subnet) is None)
        for subnet in subnets:
            used.insert(subnet, name)
        address = None if subnets else free_address(document.network, document.taken, used)
        if address is not None:
            used.insert(address, name)
        names.add(name)
        sections.append(_section(name, own.public_key, subnets, own.endpoints, own.encapsulation, address))
    for public_key, values in others.items():
        first = values[0]
        name = _unique(first, names)
        names.add(name)
        subnets = tuple(subnet for value in values for subnet in value.subnets)
        sections.append(_section(name, public_key, subnets, first.endpoints, first.encapsulation))
    for value in departed:
        if value.public_key in others or value.is_of(mine) or value.name in names:
            continue
        if any(_overlapping(each, subnet) for each in (used, document.taken) for subnet in value.subnets):
            continue
        addresses = default_addresses(value.subnets, ())
        if not addresses:
            continue
        kept = host_prefix(addresses[0])
        used.insert(kept, value.name)
        names.add(value.name)
        sections.append(
            _section(value.name, value.public_key, (), value.endpoints, value.encapsulation, kept)
        )
    sections += [section for _, section in document.stand_ins(names, used)]
    return "\n".join([document.text.rstrip("\n"), "", *sections])


def without(snapshot: Snapshot, refused: Collection[NodeValue]) -> Snapshot:
    """Return *snapshot* as if none of the nodes that are *refused* were in it."""
    if not refused:
        return snapshot
    accepted = tuple(placed for placed in snapshot.members.accepted if placed.value not in refused)
    departed = tuple(value for value in snapshot.departed if value not in refused)
    return replace(snapshot, members=replace(snapshot.members, accepted=accepted), departed=departed)


def find_node(text: str, line: int, snapshot: Snapshot) -> NodeValue | None:
    """Return the node whose section in a composed *text* has the *line*; None if that is not another node's."""
    lines = text.split("\n")[:line]
    first = next((index for index in range(len(lines) - 1, -1, -1) if lines[index].startswith("[")), None)
    if first is None or first < snapshot.document.text.rstrip("\n").count("\n") + 1:
        return None
    section = text.split("\n")[first : first + 2]
    values = [*(placed.value for placed in snapshot.members.accepted), *snapshot.departed]
    return next(
        (value for value in values if section[-1] == f'public_key = "{format_public_key(value.public_key)}"'),
        None,
    )


def problem_alone(value: NodeValue, document: Document) -> str | None:
    """Return why no table can be made with the node by itself; None where only others can be in the way of it."""
    section: dict[str, object] = {
        "public_key": format_public_key(value.public_key),
        "subnets": list(map(str, value.subnets)),
    }
    if value.endpoints:
        section["endpoint"] = value.endpoints[0]
    if value.encapsulation is not None:
        section["encapsulation"] = value.encapsulation
    network = document.network
    try:
        peer = PEERS.read(Section((PEERS.name,), {value.name: section}), value.name, network, None)
        Table(network, {value.name: peer})
    except KeyProblem as problem:
        return str(problem) if problem.keys[:2] == (PEERS.name, value.name) else None
    return None


def name_for(value: NodeValue, keys: OwnKeys, members: Members, document: Document) -> str:
    """Return the name that the node of *keys* had better have, so that no other has it."""
    taken = {placed.value.name for placed in members.accepted if not placed.value.is_of(keys)} | set(
        document.peers
    )
    return _unique(value, taken)


def _unique(value: NodeValue, names: set[str]) -> str:
    return unique_name(value.name, value.subnets[0], names)


def unique_name(wanted: str, subnet: Prefix, names: Collection[str]) -> str:
    """Return the name of a host that calls itself *wanted*, with its *subnet* or a number behind it
    where *names* have that.
    """
    name, end, number = wanted, f"-{format_subnet(subnet).rpartition('-')[0]}", 1
    while name in names:  # the longer one, too, may be what another calls itself
        name = wanted[: NAME_SIZE - len(end)] + end
        end, number = f"-{number + 1}", number + 1
    assert PEER_NAME.fullmatch(name)
    return name


def _section(
    name: str,
    public_key: bytes,
    subnets: Iterable[Prefix],
    endpoints: tuple[str, ...],
    encapsulation: str | None,
    address: Prefix | None = None,
) -> str:
    lines = [header(name), f'public_key = "{format_public_key(public_key)}"']
    if listed := ", ".join(f'"{subnet}"' for subnet in subnets):
        lines.append(f"subnets = [{listed}]")
    if address is not None:
        lines.append(f'address = "{address.network_address}"')
    if endpoints:
        lines.append(f'endpoint = "{endpoints[0]}"')
    if encapsulation is not None:
        lines.append(f'encapsulation = "{encapsulation}"')
    return "\n".join(lines) + "\n"


def describe_left_out(left_out: tuple[StoreRemark, ...]) -> list[StoreRemark]:
    """Return sentences about those that are left out, a few of them."""
    shown = list(left_out)[:MOST_REMARKS]
    more = len(left_out) - len(shown)
    return [*shown, *([StoreRemark(f"and {more} more are left out")] if more else [])]
