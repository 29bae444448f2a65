"""``overlay check``: check a peers file."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from overlay.cli.checked_services import describe_services, render_services
from overlay.cli.exits import Misuse
from overlay.cli.options import json_option, key_option, peers_option
from overlay.cli.output import format_some, format_table, show, show_json, suggest, warn
from overlay.cli.surroundings import Surroundings
from overlay.documents import SCHEMA
from overlay.errors import ConfigError, KeyFileError
from overlay.numbers import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from overlay.config import Options
    from peers.addresses import Prefix
    from peers.peer import Peer
    from peers.stores import Location
    from peers.table import Table

# Ours
SHOWN_PROBLEMS = 10


@click.command("check", epilog="Example: overlay check --peers /etc/overlay/peers.toml")
@peers_option
@key_option("The private key of this host, to tell which peer it is.")
@click.option("--node", metavar="NAME", help="The peer that this host is.  [default: by the key]")
@json_option
@click.pass_context
def command(ctx: click.Context, peers: Location, key: Path, node: str | None, as_json: bool) -> None:
    """Check a peers file, and list its peers and subnets.

    Up to ten mistakes are reported with their lines; the exit code is 2 then.  What is allowed but may be a mistake is
    a warning.  Nothing on the host is changed.
    """
    from overlay.config import Options
    from overlay.diagnosis.missing_programs import find_missing
    from overlay.host.proc_routes import read_routes
    from overlay.keys.permissions import describe_writers_of
    from peers.errors import TableError
    from peers.hints import warnings

    store = peers.open()
    try:
        table = store.load()
    except TableError as error:
        problems = [str(each) for each in store.problems(SHOWN_PROBLEMS)]
        if len(problems) < 2:
            raise
        if len(problems) == SHOWN_PROBLEMS:
            problems.append("there may be more; correct these and check again")
        raise Misuse("\nError: ".join(problems)) from error
    own, sentences = _find_own(table, Options(peers, key, "", node))
    sentences += [*map(str, store.notes()), *map(str, describe_writers_of(store.files()))]
    sentences += warnings(table)
    if own is not None:
        sentences += _check_preshared_keys(table, own)
        sentences += [str(each) for each in [find_missing(table, own, store.files())] if each is not None]
        sentences += _check_own_routes(table, own, Surroundings.of(ctx).routes or read_routes)
    if as_json:
        show_json({"schema": SCHEMA, **_describe(table, own, sentences)})
    else:
        show(_render(table, own, peers, node))
    for sentence in sentences:
        warn(sentence)


def _find_own(table: Table, options: Options) -> tuple[Peer | None, list[str]]:
    """Return the peer that this host is by its key, its addresses or ``--node``, if any of them says so, and
    warnings.
    """
    from overlay.config import find_own
    from overlay.keys.files import load_own_key

    named = None
    if options.node is not None:
        named = table.peers.get(options.node)
        if named is None:
            hint = suggest(options.node, list(table.peers))
            raise ConfigError(f"--node {options.node}: {options.peers} has no such peer; {hint}")
    key, sentences = None, list[str]()
    try:
        if any(peer.public_key is not None for peer in table.peers.values()):
            key, sentences = load_own_key(options.key)
        return find_own(table, key, options), sentences
    except KeyFileError as error:
        if os.access(options.key, os.R_OK):
            raise
        unknown = (
            "which peer this host is" if named is None else f"whether {named.name} has the key of this host"
        )
        return named, [f"{error}; until then it is not known {unknown}"]
    except ConfigError as error:
        if named is not None:
            raise
        return None, [*sentences, str(error)]


def _check_preshared_keys(table: Table, own: Peer) -> list[str]:
    """Return a sentence for each preshared key file that *own* needs but cannot use."""
    from overlay.keys.files import load_preshared_key
    from overlay.keys.permissions import describe_readers_of
    from peers.hint import Hint, grouped
    from peers.peer import preshared_key_file_for

    users: dict[Path, list[str]] = {}
    for peer in table.peers.values():
        path = preshared_key_file_for(own, peer) if peer is not own else None
        if path is not None:
            users.setdefault(path, []).append(peer.name)
    hints: list[Hint] = []
    readable: list[str] = []
    for path, names in users.items():
        try:
            load_preshared_key(path)
            readable += map(str, describe_readers_of([path]))
        except KeyFileError as error:
            several = (
                "preshared key files that this host needs do not exist, cannot be read or contain no key"
            )
            hints.append(Hint(str(path), f"{error}; this host needs it for {format_some(names, 3)}", several))
    return [*grouped(hints), *readable]


def _check_own_routes(table: Table, own: Peer, read_routes: Callable[[], Iterable[Prefix]]) -> list[str]:
    """Return a sentence for each subnet of *own* without a route on this host, so that its packets go into the tunnel.

    With a tap, no route is needed, nor for a single address of the host.  Routes that the agent itself sets up do not
    count.
    """
    from peers.addresses import host_prefix
    from peers.hint import Hint, grouped
    from peers.peer import TAP
    from peers.prefixes import PrefixMap

    wanted = [subnet for subnet in own.subnets if subnet.num_addresses > 1 and subnet.prefixlen > 0]
    if table.network.device == TAP or not wanted:
        return []
    set_up = {*table.network.prefixes, *map(host_prefix, own.addresses)}
    set_up |= {prefix for prefix, name in table.routes if name != own.name}
    carried = PrefixMap((prefix, True) for prefix in table.network.prefixes)
    routes = PrefixMap((prefix, True) for prefix in read_routes() if prefix not in set_up)
    hints = []
    for subnet in wanted:
        least = next((prefix.prefixlen for prefix, _ in carried.covering(subnet)), 0)
        around = next((prefix.prefixlen for prefix, _ in routes.covering(subnet)), 0)
        if around <= least and not routes.has_inside(subnet):
            sentence = (
                f"{subnet} is a subnet of this host, but no route here leads to it: packets for it are dropped until "
                "an interface of this host has an address in it, or a route is added"
            )
            several = "subnets of this host have no route here, so packets for them are dropped"
            hints.append(Hint(str(subnet), sentence, several))
    return grouped(hints)


def _render(table: Table, own: Peer | None, location: Location, node: str | None) -> str:
    network = table.network
    macs, tunnels = _macs(table), _tunnels(table, own)
    rows = [
        (
            "*" if peer is own else "",
            peer.name,
            ", ".join(map(str, peer.addresses)),
            str(peer.endpoint or "-"),
            ", ".join(map(str, peer.subnets)) or "-",
            *([tunnels[peer.name]] if tunnels else []),
            *([macs[peer.name]] if macs else []),
        )
        for peer in table.peers.values()
    ]
    header = (
        *("", "NAME", "ADDRESS", "ENDPOINT", "SUBNETS"),
        *(["ENCAPSULATION"] if tunnels else []),
        *(["MAC"] if macs else []),
    )
    subnets = sum(len(peer.subnets) for peer in table.peers.values())
    mtu = "by the underlay" if network.mtu is None else str(network.mtu)
    number = network.port_for(network.encapsulation)
    port = f"port {number}" if number else "no port"
    lines = [
        f"{location} is valid: {count(len(rows), 'peer')}, {count(subnets, 'subnet')}",
        f"network {', '.join(map(str, network.prefixes))}, {port}, MTU {mtu}",
        "",
        format_table(header, rows),
    ]
    if own is not None:
        lines += ["", "* this host" if node is None else "* this host, according to --node"]
    lines += render_services(table)
    return "\n".join(lines)


def _tunnels(table: Table, own: Peer | None) -> dict[str, str]:
    """Return the encapsulation between *own* and each peer, by name; nothing if all are encrypted.

    Without *own*, and for *own* itself, the peer's own setting is shown.
    """
    from peers.encapsulation import is_encrypted
    from peers.tunnel import own_encapsulation

    names = {
        peer.name: own_encapsulation(table.network, peer)
        if own is None or peer is own
        else table.encapsulation_between(own, peer)
        for peer in table.peers.values()
    }
    return {} if all(map(is_encrypted, names.values())) else names


def _macs(table: Table) -> dict[str, str]:
    """Return the Ethernet address of each peer, by name; nothing if no packets travel in frames.

    If one peer's packets do, the peers that it talks to have an address, too.
    """
    from peers.encapsulation import FACTS
    from peers.mac import derived_mac, format_mac
    from peers.tunnel import own_encapsulation

    peers = table.peers.values()
    if not any(FACTS[own_encapsulation(table.network, peer)].has_macs for peer in peers):
        return {}
    return {peer.name: format_mac(peer.macs[0] if peer.macs else derived_mac(peer.name)) for peer in peers}


def _describe(table: Table, own: Peer | None, sentences: list[str]) -> dict[str, object]:
    from peers.encapsulation import PORTS
    from peers.peer import format_public_key
    from peers.tunnel import own_encapsulation

    network, macs = table.network, _macs(table)
    return {
        "network": {
            "prefixes": [str(prefix) for prefix in network.prefixes],
            **{port.key: network.port_for(name) for name, port in PORTS.items()},
            "mtu": network.mtu,
            "fwmark": network.fwmark,
            "encapsulation": network.encapsulation,
            "vni": network.vni,
            "gre_key": network.gre_key,
            "gre_checksum": bool(network.gre_checksum),
            "gre_sequence": bool(network.gre_sequence),
            "ttl": network.ttl,
            "device": network.device,
            "point_to_point": network.point_to_point,
            "stations": network.stations,
        },
        "node": None if own is None else own.name,
        "peers": [
            {
                "name": peer.name,
                "public_key": None if peer.public_key is None else format_public_key(peer.public_key),
                "encapsulation": own_encapsulation(network, peer),
                "endpoint": None if peer.endpoint is None else str(peer.endpoint),
                "addresses": [str(address) for address in peer.addresses],
                "subnets": [str(subnet) for subnet in peer.subnets],
                "keepalive": peer.keepalive,
                "preshared_key_file": (
                    None if peer.preshared_key_file is None else str(peer.preshared_key_file)
                ),
                "listen": [str(address) for address in peer.listen],
                "listen_port": table.listen_port(peer),
                "sources": [str(prefix) for prefix in peer.sources],
                "agent": peer.is_agent,
                "mac": macs.get(peer.name),
            }
            for peer in table.peers.values()
        ],
        **describe_services(table),
        "warnings": sentences,
    }
