"""The wg-quick file of one peer of a peers file, for a device that runs plain WireGuard."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from overlay.importing.places import FileLine
from overlay.wg_quick.conf import Conf, Host, Other
from peers.addresses import host_prefix
from peers.encapsulation import is_encrypted
from peers.peer import TAP
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from overlay.crypto.keys import PresharedKey, PrivateKey
    from overlay.wg_quick.conf import Interface
    from peers.addresses import Address, Prefix
    from peers.peer import Peer
    from peers.table import Table

# Ours
NOWHERE = FileLine("", 0)  # of output, which has no place
NAMED = 5


class CannotExportError(Exception):
    """The peer cannot have a wg-quick file.  The text is one sentence with the remedy."""


def export(
    table: Table,
    own: Peer,
    private_key: PrivateKey | None,
    preshared_keys: Mapping[str, PresharedKey],
) -> Conf:
    """Return the file for *own*; *preshared_keys* are those that it shares, by peer.  Raises CannotExportError."""
    network = table.network
    if network.device == TAP:
        raise CannotExportError(
            "the network's device is a tap, and WireGuard does not carry Ethernet frames; each host needs an agent"
        )
    if not is_encrypted(own_encapsulation(network, own)):
        raise CannotExportError(
            f"packets of {own.name} travel in {own_encapsulation(network, own)}, not in WireGuard; remove "
            f"encapsulation from peers.{own.name}"
        )
    host = Host(
        NOWHERE,
        own.name,
        private_key,
        tuple(_interface(table, address) for address in own.addresses),
        table.listen_port(own) if own.listen_port is not None or own.endpoint is not None else None,
        network.fwmark,
        network.mtu,
    )
    extra = _service_addresses(table, own)
    others = [
        Other(
            NOWHERE,
            peer.public_key,
            name,
            preshared_keys.get(name),
            (*_allowed(peer), *extra.get(name, ())),
            table.endpoint_for(peer, table.encapsulation_between(own, peer)),
            peer.keepalive,
        )
        for name, peer in table.peers.items()
        if peer is not own and peer.public_key is not None and _is_by_wireguard(table, own, peer)
    ]
    if not others:
        raise CannotExportError(f"{own.name} has no peer that it reaches by WireGuard; name another")
    return Conf(host, tuple(others))


def without_names(conf: Conf) -> Conf:
    """Return *conf* without the names of peers, which are comments: a QR code has little room."""
    return Conf(replace(conf.host, name=None), tuple(replace(other, name=None) for other in conf.others))


def describe_losses(table: Table, own: Peer) -> Iterator[str]:
    """Yield a sentence for each setting of *own* that its file cannot express."""
    clear = [
        name
        for name, peer in table.peers.items()
        if peer is not own and not _is_by_wireguard(table, own, peer)
    ]
    if clear:
        yield f"{_some(clear)}: left out, because packets between them and {own.name} do not travel in WireGuard"
    if own.endpoint is None:
        silent = [name for name, peer in table.peers.items() if peer is not own and peer.endpoint is None]
        if silent:
            yield f"{_some(silent)}: out of reach of {own.name}, because neither end has an endpoint in the peers file"
    for address in own.addresses:
        beside = [prefix for prefix in table.network.prefixes if prefix.version == address.version]
        if beside and not any(address in prefix for prefix in beside):
            yield (
                f"{address} of {own.name} is outside {_some(list(map(str, beside)))}, the network's prefix: choose "
                "one inside, unless that is on purpose"
            )
    if own.listen:
        yield f"listen of peers.{own.name} is left out: WireGuard listens on every address"
    if table.network.ttl is not None:
        yield "ttl of the network is left out: WireGuard uses the system's default"
    serving = [
        name
        for name, service in table.services.items()
        if any(server.peer == own.name for server in service.servers)
    ]
    if serving:
        yield (
            f"{own.name} serves {_some(serving)}: it needs the address of the service on its interface and wider "
            "AllowedIPs for the director, see docs/services.md"
        )
    everywhere = [name for name, service in table.services.items() if service.directors is None]
    if everywhere:
        yield (
            f"{_some(everywhere)}: out of reach, because every host balances for itself, which plain WireGuard does "
            "not do; name directors"
        )


def _is_by_wireguard(table: Table, a: Peer, b: Peer) -> bool:
    return is_encrypted(table.encapsulation_between(a, b))


def _allowed(peer: Peer) -> tuple[Prefix, ...]:
    """Return the addresses and subnets of *peer*, the addresses first: `overlay import` takes those as its own."""
    own = [host_prefix(address) for address in peer.addresses]
    return tuple(dict.fromkeys((*own, *peer.subnets)))


def _interface(table: Table, address: Address) -> Interface:
    """Return *address* with the length of the network's prefix that contains it, to which wg-quick makes a route."""
    lengths = [
        prefix.prefixlen
        for prefix in table.network.prefixes
        if prefix.version == address.version and address in prefix
    ]
    return ip_interface(f"{address}/{max(lengths)}") if lengths else ip_interface(address)


def _service_addresses(table: Table, own: Peer) -> dict[str, dict[Prefix, None]]:
    """Return the addresses of services by their first director, the one that a plain peer can use."""
    found: dict[str, dict[Prefix, None]] = {}
    for service in table.services.values():
        director = next((name for name in service.directors or () if name != own.name), None)
        if director is not None:
            found.setdefault(director, {}).update(dict.fromkeys(map(host_prefix, service.addresses)))
    return found


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
