"""What services may have and may yet be a mistake, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.errors import format_keys
from peers.hint import Hint, grouped
from peers.service import DIRECT
from peers.services.clients import wireguard_place
from peers.services.conflicts import owners_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from peers.addresses import Address
    from peers.peer import Network, Peer
    from peers.prefixes import PrefixMap
    from peers.service import Service

WITHOUT_WEIGHTS = {"rr", "lc", "dh"}  # schedulers that do not look at weights, but for 0

# Ours
SITE = {4: 24, 6: 48}  # bits of an address that those of one site share, by version


def warn_of_services(
    _network: Network, peers: Mapping[str, Peer], services: Collection[Service]
) -> list[str]:
    """Return a sentence for everything in *services* that is valid but probably a mistake."""
    by_wireguard = [peer.name for peer in peers.values() if peer.public_key is not None and not peer.is_agent]
    hints = [
        hint
        for service in services
        for hint in (
            *_servers(service),
            *_sums(service),
            *_weights(service),
            *_sorry(service),
            *_directing_servers(service, peers),
            *_foreign_sources(service, peers),
            *_wireguard_servers(service, peers),
            *_clients(service, by_wireguard),
        )
    ]
    return grouped([*hints, *_inside(services, peers), *_held(services)])


def warn_of_unused(table: str, names: Collection[str], used: Collection[str]) -> list[str]:
    """Return a sentence for those *names* in *table* that no service names."""
    return grouped(
        Hint(
            format_keys((table, name)),
            f"{format_keys((table, name))} has no effect, because no service names it",
            f"sections of [{table}] have no effect, because no service names them",
        )
        for name in names
        if name not in used
    )


def _servers(service: Service) -> Iterator[Hint]:
    if any(server.weight for server in service.servers):
        return
    found = (
        "has no servers" if not service.servers else "has servers of weight 0 alone, which take nothing new"
    )
    then = (
        f"all connections go to the sorry server {service.sorry.name}"
        if service.sorry
        else "clients are refused"
    )
    yield Hint(
        _named(service),
        f"{_named(service)} {found}: {then}",
        "services have no server that takes anything, so that clients get the sorry server or are refused",
    )


def _sums(service: Service) -> Iterator[Hint]:
    total = sum(server.weight for server in service.servers)
    if not total or service.quorum + service.hysteresis <= total:
        return
    yield Hint(
        _named(service),
        f"{_named(service)} needs a sum of weights of {service.quorum + service.hysteresis} for its quorum, and that "
        f"of all its servers is {total}, so the quorum is never gained",
        "services have a quorum beyond the sum of all weights, so it is never gained",
    )


def _weights(service: Service) -> Iterator[Hint]:
    if service.scheduler not in WITHOUT_WEIGHTS:
        return
    weights = {server.weight for server in service.servers} - {0}
    if len(weights) > 1:
        yield Hint(
            _named(service),
            f"{_named(service)} has servers of different weights, and {service.scheduler} does not look at them; write "
            "another scheduler, such as wrr or wlc",
            "services have weights that their scheduler does not look at",
        )
    if service.slow_start:
        yield Hint(
            _named(service),
            f"{_named(service)} has a slow start, which works by weights, and {service.scheduler} ignores those; "
            "write another scheduler, such as wrr or wlc",
            "services have a slow start that their scheduler ignores",
        )


def _sorry(service: Service) -> Iterator[Hint]:
    is_checked = any(service.checks_of(server) for server in service.servers)
    if service.sorry is None or is_checked or not service.servers:
        return
    yield Hint(
        _named(service),
        f"{_named(service)} has a sorry server and no check, so that its servers count as up whatever happens; "
        "write a check",
        "services have a sorry server and no check, so that their servers count as up whatever happens",
    )


def _directing_servers(service: Service, peers: Mapping[str, Peer]) -> Iterator[Hint]:
    """Yield a hint for a host that balances and serves, and has no address of the family to give packets to."""
    families = sorted({address.version for address in service.addresses})
    for server in service.entries:
        peer = peers[server.peer]
        if server.address is not None or not service.is_directed_by(peer.name) or not peer.is_agent:
            continue
        for family in families:
            if all(address.version != family for address in peer.addresses):
                yield Hint(
                    _peer(peer.name),
                    f"{_peer(peer.name)} balances {_named(service)} and is one of its servers, but has no IPv{family} "
                    f"address on the overlay to which it can give what comes to its IPv{family} address; write one",
                    f"peers balance a service and are servers of it, but have no IPv{family} address on the overlay",
                )


def _foreign_sources(service: Service, peers: Mapping[str, Peer]) -> Iterator[Hint]:
    """Yield a hint for servers whose provider may drop answers that come from an address of another site (BCP 38)."""
    if service.reply != DIRECT:
        return
    for server in service.entries:
        endpoint = peers[server.peer].endpoint
        own = None if endpoint is None else endpoint.address
        if own is None or not own.is_global:
            continue
        for address in service.addresses:
            if address.is_global and address.version == own.version and _site(address) != _site(own):
                yield Hint(
                    _peer(server.peer),
                    f"{_peer(server.peer)} at {own} answers clients outside the overlay of {_named(service)} as "
                    f"{address}, which its provider may drop as a foreign source (BCP 38); if clients hear nothing, "
                    "write "
                    'reply = "director"',
                    "servers answer from an address of another site, which their providers may drop (BCP 38); "
                    "if clients "
                    'hear nothing, write reply = "director"',
                )
                break


def _wireguard_servers(service: Service, peers: Mapping[str, Peer]) -> Iterator[Hint]:
    for server in service.entries:
        peer = peers[server.peer]
        if peer.is_agent or peer.public_key is None:
            continue
        (director,) = service.directors or ("the director",)
        everywhere = {4: "0.0.0.0/0", 6: "::/0"}
        allowed = ", ".join(dict.fromkeys(everywhere[address.version] for address in service.addresses))
        held = " and ".join(map(str, service.addresses))
        yield Hint(
            _peer(peer.name),
            f"{_peer(peer.name)} is a server of {_named(service)} by WireGuard without an agent: it needs AllowedIPs "
            f"= {allowed} for {director}, with Table = off, and {held} on its interface, with rp_filter = 2 there",
            "servers have WireGuard without an agent: they need AllowedIPs of everything for the director, with Table "
            "= off, and the virtual address on their interface, with rp_filter = 2 there",
        )


def _clients(service: Service, by_wireguard: Collection[str]) -> Iterator[Hint]:
    place = wireguard_place(service, tuple(by_wireguard))
    if place.works:
        return
    for name in place.peers:
        if not service.entries_at(name):
            yield Hint(
                _peer(name),
                f"clients at {_peer(name)} cannot use {_named(service)}: {place.way}",
                f"peers have clients that cannot use a service: {place.way}",
            )


def _inside(services: Collection[Service], peers: Mapping[str, Peer]) -> Iterator[Hint]:
    """Yield a hint for each virtual address inside a subnet of a peer that does not balance it.

    On the LAN of a director it is expected: there the director answers for it.
    """
    owners: PrefixMap[str] | None = None
    for service in services:
        for address in service.addresses:
            owners = owners or owners_of(peers.values())
            found = owners.match(address)
            if found is None or found[0].prefixlen == 0 or service.is_directed_by(found[1]):
                continue
            prefix, name = found
            yield Hint(
                f"{address} of {_named(service)}",
                f"{address} of {_named(service)} lies inside {prefix} of {_peer(name)}, which does not balance it: in "
                "the overlay its packets go to a director, on that LAN they need a route to one",
                "virtual addresses lie inside subnets of peers that do not balance them",
            )


def _held(services: Collection[Service]) -> Iterator[Hint]:
    """Yield a hint for hosts that have the address of one service themselves, but are not servers of another on it."""
    for service in services:
        for other in services:
            shared = [address for address in service.addresses if address in other.addresses]
            if other is service or not shared:
                continue
            for name in dict.fromkeys(entry.peer for entry in other.entries if entry.address is None):
                if other.is_directed_by(name) or service.is_directed_by(name) or service.entries_at(name):
                    continue
                yield Hint(
                    _peer(name),
                    f"clients at {_peer(name)} cannot use {_named(service)}: its host has {shared[0]} itself, as a "
                    f"server of {_named(other)}; name it among the directors, "
                    "or give one of the services another address",
                    "peers have clients that cannot use a service, because their host has its address for another one",
                )


def _site(address: Address) -> int:
    return int(address) >> (address.max_prefixlen - SITE[address.version])


def _named(service: Service) -> str:
    return format_keys(("services", service.name))


def _peer(name: str) -> str:
    return format_keys(("peers", name))
