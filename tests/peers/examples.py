"""Peers and peers files for tests: short to write, valid, and the same every time."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address, ip_network

from peers.encapsulation import PORTS
from peers.gre import KEYS
from peers.mac import format_mac
from peers.peer import Endpoint, Network, Peer, default_addresses, format_public_key
from peers.table import Table

PREFIXES = (ip_network("10.244.0.0/16"), ip_network("fd00:244::/32"))


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def key_text(name: str) -> str:
    return format_public_key(key(name))


def peer(
    name: str, *subnets: str, address: tuple[str, ...] = (), endpoint: str | None = None, **fields
) -> Peer:
    prefixes = tuple(map(ip_network, subnets))
    return Peer(
        name,
        fields.pop("public_key", key(name)),
        prefixes,
        tuple(map(ip_address, address)) or default_addresses(prefixes, PREFIXES),
        None if endpoint is None else Endpoint.parse(endpoint, 51820),
        **fields,
    )


def table(*peers: Peer, **fields) -> Table:
    ports = {name: fields.pop(port.key) for name, port in PORTS.items() if port.key in fields}
    return Table(
        Network(fields.pop("prefixes", PREFIXES), ports, **fields), {peer.name: peer for peer in peers}
    )


def render(table: Table) -> str:
    """Return a peers file that parses to *table* if it is in the directory ``/etc/overlay``."""
    network = table.network
    lines = ["[network]", f"prefix = {_quoted(network.prefixes)}"]
    lines += [f"{port.key} = {network.port_for(name)}" for name, port in PORTS.items()]
    if table.network.mtu is not None:
        lines.append(f"mtu = {table.network.mtu}")
    if not table.network.bulk:
        lines.append("bulk = false")
    if table.network.fwmark is not None:
        lines.append(f"fwmark = {table.network.fwmark}")
    lines.append(f'encapsulation = "{table.network.encapsulation}"')
    lines += [f"vni = {network.vni}", f'device = "{network.device}"']
    lines.append(f"stations = {network.stations}")
    lines.append(f"point_to_point = {str(network.point_to_point).lower()}")
    if network.metrics is not None:
        lines.append(f'metrics = "{network.metrics}"')
    lines += _gre(network)
    if network.ttl is not None:
        lines.append(f"ttl = {network.ttl}" if network.ttl else 'ttl = "inherit"')
    for peer in table.peers.values():
        lines += ["", f'[peers."{peer.name}"]', f"sources = {_quoted(peer.sources)}"]
        if peer.public_key is not None:
            lines.append(f'public_key = "{format_public_key(peer.public_key)}"')
        lines.append(f"mac = {_quoted(map(format_mac, peer.macs))}")
        lines += _gre(peer)
        if peer.encapsulation is not None:
            lines.append(f'encapsulation = "{peer.encapsulation}"')
        lines += [f"subnets = {_quoted(peer.subnets)}", f"address = {_quoted(peer.addresses)}"]
        lines += [f"keepalive = {peer.keepalive}", f"listen = {_quoted(peer.listen)}"]
        if peer.endpoint is not None:
            lines.append(f'endpoint = "{peer.endpoint}"')
        if peer.preshared_key_file is not None:
            lines.append(f'preshared_key_file = "{peer.preshared_key_file}"')
        if peer.listen_port is not None:
            lines.append(f"listen_port = {peer.listen_port}")
        if peer.agent is not None:
            lines.append(f"agent = {str(peer.agent).lower()}")
    return "\n".join(lines) + "\n"


def _gre(holder: Network | Peer) -> list[str]:
    values = {key: getattr(holder, key) for key in KEYS}
    return [f"{key} = {str(value).lower()}" for key, value in values.items() if value is not None]


def _quoted(values: tuple[object, ...]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
