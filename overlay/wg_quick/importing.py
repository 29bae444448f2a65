"""Makes one peers file from the wg-quick files of one or several hosts.

Hosts are recognized by their keys: the [Interface] of one file is a [Peer] in the others.  In a peers file each host is
a peer of every other, a prefix leads to one peer, and what is behind a peer is the same for all.  Where files differ in
that, or have settings without a counterpart, there is a remark.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from overlay.crypto.keys import PresharedKey, encode_key
from overlay.importing.places import FileLine, Remarks, UnreadableError
from overlay.importing.toml_text import format_comment, format_table
from overlay.wg_quick import preshared, topology
from overlay.wg_quick.naming import LONGEST, is_generic, name_from
from overlay.wg_quick.node import Node
from overlay.wg_quick.unsupported import remark_on
from peers import toml
from peers.addresses import host_prefix, is_host_address
from peers.errors import KeyProblem
from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from overlay.crypto.keys import PrivateKey
    from overlay.importing.toml_text import Value
    from overlay.wg_quick.conf import Conf
    from peers.addresses import Address, Prefix
    from peers.table import Table

# Specification
DEFAULT_PORT = 51820  # of the peers file

# Ours
SMALLEST_MTU, SMALLEST_MTU_V6 = 576, 1280  # of the peers file, and of one with prefixes of IPv6
NEIGHBOURHOOD = {4: 24, 6: 64}  # length of the prefix in which an address is chosen if none is known
MOST_CHOICES = 1000


@dataclass(frozen=True, slots=True)
class Imported:
    """A valid peers file, and the keys that it does not contain.

    *private_keys* are by the names of the hosts; *preshared_keys* are by the names of the files that *text* names.
    """

    text: str
    table: Table
    private_keys: Mapping[str, PrivateKey]
    preshared_keys: Mapping[str, PresharedKey]


def import_files(
    files: Sequence[tuple[str, Conf]], remarks: Remarks, directory: Path | None = None
) -> Imported:
    """Return a peers file for *files*, which are by path; it names preshared keys in *directory*.

    Without one, they are next to the peers file.  Raises UnreadableError.
    """
    nodes = _collect(files, remarks)
    _name_all(nodes)
    for node in nodes:
        for setting in () if node.host is None else node.host.unsupported:
            remark_on(setting, remarks)
    prefixes = _prefixes(nodes)
    holders = _give_addresses(nodes, prefixes, remarks)
    if not any(node.addresses and node.host is not None for node in nodes):
        raise UnreadableError(
            nodes[0].place, "has no Address, and no other file has one; write the address of this host there"
        )
    nodes = [node for node in nodes if node.addresses]
    _give_subnets(nodes, holders, remarks)
    network = _settle_network(nodes, prefixes, remarks)
    _settle_peers(nodes, network.get("port", DEFAULT_PORT), remarks)
    _share_keys(nodes, remarks)
    title = f"Made of {', '.join(path for path, _ in files)} by overlay import"
    text, table = _compose(title, nodes, network, directory, remarks)
    topology.compare(nodes, table, remarks)
    return Imported(
        text,
        table,
        {node.name: node.host.private_key for node in nodes if node.host and node.host.private_key},
        {
            _key_file(node.name): PresharedKey(node.preshared_key)
            for node in nodes
            if node.preshared_key is not None and table.peers[node.name].preshared_key_file is not None
        },
    )


def _collect(files: Sequence[tuple[str, Conf]], remarks: Remarks) -> list[Node]:
    """Return the hosts in *files*, those with a file first."""
    nodes: dict[bytes, Node] = {}
    for path, conf in files:
        host = conf.host
        if host.private_key is None:
            raise UnreadableError(
                host.place,
                "has no PrivateKey, which shows whose file this is; write it, even if PostUp sets it",
            )
        node = Node(host.private_key.public, host.place, host, path)
        earlier = nodes.setdefault(node.public_key, node)
        if earlier is not node:
            raise UnreadableError(
                host.place,
                f"is the same host as {earlier.path}: both have the same PrivateKey; import one of them",
            )
    for _, conf in files:
        assert conf.host.private_key is not None
        viewer = nodes[conf.host.private_key.public]
        for other in conf.others:
            if other.public_key == viewer.public_key:
                remarks.add(
                    other.place,
                    "[Peer]",
                    "has the key of the file's own host, which WireGuard ignores; left out",
                )
                continue
            node = nodes.setdefault(other.public_key, Node(other.public_key, other.place))
            node.sightings.append((viewer, other))
    return list(nodes.values())


def _name_all(nodes: Iterable[Node]) -> None:
    taken: set[str] = set()
    last: dict[str, int] = {}  # number that was appended to a name
    for number, node in enumerate(nodes, 1):
        name = _likely_name(node) or f"peer-{number}"
        key = name.lower()  # file names of keys are made from it, and some file systems ignore case
        node.name = name
        while node.name.lower() in taken:
            last[key] = last.get(key, 1) + 1
            suffix = f"-{last[key]}"
            node.name = name[: LONGEST - len(suffix)] + suffix
        taken.add(node.name.lower())


def _likely_name(node: Node) -> str | None:
    own = None if node.host is None else node.host.name
    given = next((other.name for _, other in node.sightings if other.name is not None), None)
    of_file = None if node.host is None else _name_of_file(node.path)
    if own or given or of_file:
        return own or given or of_file
    for _, other in node.sightings:
        if other.endpoint is not None and other.endpoint.address is None:
            return name_from(other.endpoint.host)
    for _, other in node.sightings:
        for prefix in other.allowed:
            if prefix.num_addresses == 1:
                return name_from(f"peer-{prefix.network_address}".replace(":", "-"))
    return None


def _name_of_file(path: str) -> str | None:
    """Return the name of a file, or that of its directory if many hosts have a file of that name."""
    pure = PurePath(path)
    stem = pure.name.removesuffix(".conf")
    parent = pure.parent.name
    if is_generic(stem) and parent not in {"", "..", "wireguard", "etc", "tmp"}:
        return name_from(parent)
    return name_from(stem)


def _prefixes(nodes: Iterable[Node]) -> list[Prefix]:
    """Return the prefixes of the overlay: the networks of all addresses of interfaces.

    An address without a network is in the narrowest network that another host has for it, except for everything.
    """
    seen = [prefix for node in nodes for _, other in node.sightings for prefix in other.allowed]
    around = PrefixMap(
        (prefix, prefix) for prefix in seen if prefix.prefixlen > 0 and prefix.num_addresses > 1
    )
    found: dict[Prefix, None] = {}
    for node in nodes:
        for address in () if node.host is None else node.host.addresses:
            network: Prefix = address.network
            if network.num_addresses == 1:
                network = around.lookup(address.ip) or network
            found.setdefault(network)
    wide = PrefixMap((each, each) for each in found)
    kept = [each for each in found if all(outer == each for outer, _ in wide.covering(each))]
    if kept:
        return kept
    return [host_prefix(next(prefix.network_address for prefix in seen))] if seen else []


def _give_addresses(
    nodes: Sequence[Node], prefixes: Sequence[Prefix], remarks: Remarks
) -> dict[Prefix, Node]:
    """Give each node its addresses, one of each family; return which node has which."""
    holders: dict[Prefix, Node] = {}

    def give(node: Node, place: FileLine, address: Address) -> None:
        holder = holders.setdefault(host_prefix(address), node)
        if holder is not node:
            if node.host is not None:
                raise UnreadableError(
                    place,
                    f"{address} is also the address of {holder.name} ({holder.place}); correct one of them",
                )
            remarks.add(
                place,
                f"{address}",
                f"is the address of {holder.name}, so {node.name} does not have it; left out",
            )
        elif any(address.version == each.version for each in node.addresses):
            node.subnets.append(host_prefix(address))
        else:
            node.addresses.append(address)

    for node in nodes:
        for interface in () if node.host is None else node.host.addresses:
            if any(interface.version == each.version for each in node.addresses):
                remarks.add(
                    node.place,
                    f"Address {interface.ip}",
                    "becomes a subnet, because a host has one address of each family; the interface does not get it",
                )
            give(node, node.place, interface.ip)
    inside = PrefixMap((prefix, True) for prefix in prefixes)
    for node in nodes:
        if node.addresses:
            continue
        alone = [
            (other.place, prefix.network_address)
            for _, other in node.sightings
            for prefix in other.allowed
            if prefix.num_addresses == 1 and is_host_address(prefix.network_address)
        ]
        for place, address in sorted(dict.fromkeys(alone), key=lambda each: not inside.lookup(each[1])):
            if not any(address.version == each.version for each in node.addresses):
                give(node, place, address)
    for node in nodes:
        if not node.addresses:
            _choose_address(node, prefixes, holders, remarks)
    return holders


def _choose_address(
    node: Node, prefixes: Sequence[Prefix], holders: dict[Prefix, Node], remarks: Remarks
) -> None:
    """Give *node*, whose address is in no file, an unused one."""
    if not any(other.allowed for _, other in node.sightings):
        what = "[Peer]" if node.host is None else "[Interface]"
        reason = "has no AllowedIPs" if node.host is None else "has no Address, and no other file has it"
        remarks.add(node.place, what, f"{reason}, so {node.name} sends and gets nothing; left out")
        return
    for prefix in prefixes:
        around = prefix
        if prefix.num_addresses == 1:
            around = prefix.supernet(new_prefix=NEIGHBOURHOOD[prefix.version])
        for number in range(1, min(MOST_CHOICES, around.num_addresses - 1)):
            address = around.network_address + number
            if host_prefix(address) not in holders and is_host_address(address):
                holders[host_prefix(address)] = node
                node.addresses.append(address)
                remarks.add(
                    node.place,
                    f"{node.name}",
                    f"its own address is not in any file, and a peer needs one: {address} was chosen; correct it",
                )
                return
    raise UnreadableError(
        node.place,
        f"the address of {node.name} is not known, and none is free; add it to AllowedIPs as a /32",
    )


def _give_subnets(nodes: Iterable[Node], holders: dict[Prefix, Node], remarks: Remarks) -> None:
    """Give each node the prefixes that others send it, each prefix to one node."""
    for node in nodes:
        own = {*node.subnets, *map(host_prefix, node.addresses)}
        for _, other in node.sightings:
            for prefix in other.allowed:
                holder = holders.setdefault(prefix, node)
                if holder is not node:
                    remarks.add(
                        other.place,
                        f"AllowedIPs {prefix}",
                        f"already leads to {holder.name} ({holder.place}), and a prefix leads to one peer; left out",
                    )
                elif prefix not in own:
                    own.add(prefix)
                    node.subnets.append(prefix)


def _settle_network(nodes: Sequence[Node], prefixes: Sequence[Prefix], remarks: Remarks) -> dict[str, Value]:
    """Return the keys of [network] with their values."""
    hosts = [node for node in nodes if node.host is not None]
    network: dict[str, Value] = {"prefix": tuple(map(str, prefixes))}
    ports = Counter(node.host.listen_port for node in hosts if node.host and node.host.listen_port)
    port = max(ports, key=lambda each: (ports[each], each == DEFAULT_PORT), default=DEFAULT_PORT)
    if port != DEFAULT_PORT:
        network["port"] = port
    has_ipv6 = any(each.version == 6 for node in nodes for each in (*prefixes, *node.subnets))
    smallest, of_what = (SMALLEST_MTU_V6, " with IPv6") if has_ipv6 else (SMALLEST_MTU, "")
    for key, name, least in (("mtu", "MTU", smallest), ("fwmark", "FwMark", 0)):
        values = {node.name: getattr(node.host, key) for node in hosts}
        known = [value for value in values.values() if value is not None and value >= least]
        if known:
            network[key] = min(known) if key == "mtu" else known[0]
        for node in hosts:
            value = values[node.name]
            if value is not None and value < least:
                used = f"; for all hosts it is {network[key]}" if known else "; left out"
                problem = f"{value} is less than {least}, the minimum in a peers file{of_what}"
                remarks.add(node.place, name, problem + used)
            elif known and value != network[key]:
                found = "not set" if value is None else f"{value}"
                remarks.add(node.place, name, f"is {found} here, {_one_for_all(network[key])}")
    return network


def _one_for_all(value: object) -> str:
    """Return what became of a setting that differs from file to file, and how to keep it, as a part of a sentence."""
    return f"and {value} for all hosts in this peers file; to keep it, import this file alone"


def _settle_peers(nodes: Iterable[Node], port: object, remarks: Remarks) -> None:
    """Give each node its endpoint, port and keepalive from the files."""
    for node in nodes:
        for _, other in node.sightings:
            if node.endpoint is None:
                node.endpoint = other.endpoint
            elif other.endpoint not in {None, node.endpoint}:
                remarks.add(
                    other.place,
                    f"Endpoint {other.endpoint}",
                    f"differs from other files, {_one_for_all(node.endpoint)}",
                )
        times = {other.keepalive for _, other in node.sightings}
        node.keepalive = min(times - {0}, default=0)
        for _, other in node.sightings:
            if other.keepalive != node.keepalive:
                remarks.add(
                    other.place,
                    "PersistentKeepalive",
                    f"is {other.keepalive or 'off'} here, {_one_for_all(node.keepalive)}",
                )
        listening = node.host.listen_port if node.host else node.endpoint.port if node.endpoint else None
        node.listen_port = None if listening == port else listening


def _share_keys(nodes: Sequence[Node], remarks: Remarks) -> None:
    """Assign preshared keys to nodes so that each pair has its own."""
    present = {node.name for node in nodes}
    wanted: dict[preshared.Pair, bytes | None] = {}
    places: dict[preshared.Pair, FileLine] = {}
    for node in nodes:
        for viewer, other in node.sightings:
            if viewer.name not in present:
                continue
            first, second = sorted((node.name, viewer.name))
            key = None if other.preshared_key is None else other.preshared_key.secret
            if wanted.setdefault((first, second), key) != key:
                remarks.add(
                    other.place,
                    "PresharedKey",
                    f"of {first} with {second} differs in the file of the other ({places[first, second]})",
                )
            places.setdefault((first, second), other.place)
    keys = preshared.assign(wanted)
    for first, second in preshared.misfits(wanted, keys):
        remarks.add(
            places[first, second],
            "PresharedKey",
            f"of {first} with {second} does not fit into a peers file, where a host has one key for all others; "
            "they get "
            f"{'that of ' + (first if first in keys else second) if {first, second} & keys.keys() else 'none'}",
        )
    for node in nodes:
        node.preshared_key = keys.get(node.name)


def _compose(
    title: str, nodes: Sequence[Node], network: dict[str, Value], directory: Path | None, remarks: Remarks
) -> tuple[str, Table]:
    """Return the peers file.  Anything that the parser of peers files refuses is left out with a remark."""
    sections = {node.name: _section(node, directory) for node in nodes}
    path = (directory or Path("/etc/overlay")) / "peers.toml"
    while True:
        text = format_comment(title) + "\n" + format_table(("network",), network.items())
        for name, section in sections.items():
            text += "\n" + format_table(("peers", name), section.items())
        try:
            return text, toml.read_document(toml.parse_document(text, path), path.parent)
        except KeyProblem as problem:
            place = _leave_out(problem, nodes, network, sections)
            if place is None:
                raise UnreadableError(nodes[0].place, f"does not make a peers file: {problem}") from None
            remarks.add(place, ".".join(map(str, problem.keys)), f"{problem.finding}; left out")


def _leave_out(
    problem: KeyProblem,
    nodes: Sequence[Node],
    network: dict[str, Value],
    sections: Mapping[str, dict[str, Value]],
) -> FileLine | None:
    """Leave out the value that *problem* is about; return where it was, None if it cannot be left out."""
    match problem.keys:
        case ("network", "mtu"):
            del network["mtu"]
            return nodes[0].place
        case ("peers", str(name), ("endpoint" | "keepalive" | "listen_port") as key):
            del sections[name][str(key)]
        case ("peers", str(name), "subnets", int(index)):
            subnets = sections[name]["subnets"]
            assert isinstance(subnets, tuple)
            sections[name]["subnets"] = subnets[:index] + subnets[index + 1 :]
        case _:
            return None
    return next(node.place for node in nodes if node.name == name)


def _section(node: Node, directory: Path | None) -> dict[str, Value]:
    section: dict[str, Value] = {"public_key": encode_key(node.public_key)}
    if node.endpoint is not None:
        section["endpoint"] = str(node.endpoint)
    if node.listen_port is not None:
        section["listen_port"] = node.listen_port
    section["address"] = tuple(map(str, node.addresses))
    if node.subnets:
        section["subnets"] = tuple(map(str, node.subnets))
    if node.keepalive:
        section["keepalive"] = node.keepalive
    if node.preshared_key is not None:
        name = _key_file(node.name)
        section["preshared_key_file"] = name if directory is None else str(directory / name)
    return section


def _key_file(name: str) -> str:
    return f"{name}.psk"
