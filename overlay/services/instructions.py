"""What the forwarder needs to know about the services in a table: which it balances, their servers, and who may send
what.

Nothing here does I/O.  A service and its servers have numbers that the agent keeps from one table to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.link.messages import OWN, Routes
from overlay.link.service_messages import (
    MOST_VIEWS,
    VIRTUAL,
    PermitRow,
    ServerRow,
    SetPermits,
    SetServers,
    SetService,
)
from peers.service import DIRECTOR, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from overlay.services.health import Health, ServerStanding
    from peers.addresses import Address
    from peers.peer import Peer
    from peers.service import Server, Service
    from peers.table import Table


class Numbers:
    """The numbers of services by name, and of their servers by key.  No number is used twice."""

    def __init__(self) -> None:
        self._services: dict[str, int] = {}
        self._servers: dict[tuple[str, str], int] = {}

    def service(self, name: str) -> int:
        """Return the number of the service *name*."""
        return self._services.setdefault(name, len(self._services))

    def server(self, service: str, key: str) -> int:
        """Return the number of the server *key* of the service *service*."""
        return self._servers.setdefault((service, key), len(self._servers))


def set_service(service: Service, number: int, own: str, peer_number: Callable[[str], int]) -> SetService:
    """Return the command that sets up *service* at the node *own*.

    If every node is a director, each balances the connections that start there, and no flow comes to another.
    """
    others = [peer_number(name) for name in service.directors or () if name != own]
    prefixes = service.persistence_prefix
    return SetService(
        number,
        service.name,
        [address.packed for address in service.addresses],
        [PROTOCOLS[each] for each in service.protocols],
        list(service.ports),
        service.scheduler,
        float(service.persistence),
        prefixes[4],
        prefixes[6],
        service.one_packet,
        [service.idle_tcp, service.idle_fin, service.idle_udp],
        [service.new_flows_per_second, service.most_flows, service.recent_flows],
        others,
    )


def set_servers(
    health: Health,
    numbers: Numbers,
    peer_number: Callable[[str], int],
    elsewhere: Sequence[tuple[int, list[int]]] = (),
) -> SetServers:
    """Return the command with the current servers of a service, here and *elsewhere*."""
    service = health.service
    keys = {server.key for server in service.servers}
    dscps = service.dscps()

    def row(server: Server) -> ServerRow:
        standing: ServerStanding = health.standings[server.key]
        return ServerRow(
            numbers.server(service.name, server.key),
            server.key,
            peer_number(server.peer),
            standing.effective,
            standing.flows.value,
            dscps[server.key],
            server.upper,
            server.lower,
            [(version, takes.value) for version, takes in standing.apart],
        )

    sorry = [each for each in service.entries if each.key not in keys]
    return SetServers(
        numbers.service(service.name),
        [row(server) for server in service.servers],
        [row(each) for each in sorry],
        is_sorry=bool(sorry) and not health.has_quorum,
        elsewhere=list(elsewhere[:MOST_VIEWS]),
    )


def set_permits(table: Table, own: Peer, peer_number: Callable[[str], int]) -> SetPermits:
    """Return what peers may send here because of the services of *table*."""

    def numbers(names: Iterable[str]) -> list[int]:
        return sorted({peer_number(name) for name in names if name != own.name and name in table.peers})

    rows: list[PermitRow] = []
    for service in table.services.values():
        spoken = _spoken(service)
        directors = None if service.directors is None else numbers(service.directors)
        senders = numbers(entry.peer for entry in service.entries)
        for address in service.addresses:
            if service.entries_at(own.name) and directors != []:
                returns = service.reply == DIRECTOR
                rows += (PermitRow(address.packed, False, directors or [], *each, returns) for each in spoken)
            answering = None if directors is None else sorted({*senders, *directors})
            if answering != []:
                rows += (PermitRow(address.packed, True, answering or [], *each) for each in spoken)
    return SetPermits(rows)


def _spoken(service: Service) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Return the protocols and ports of clients, and then those of checks alone."""
    ports = list(service.ports)
    spoken = [([PROTOCOLS[each] for each in service.protocols], ports)]
    for protocol, checked in service.checked_ports().items():
        beside = [(port, port) for port in checked]
        if service.protocols == (protocol,):
            ports += beside if ports else []
        else:
            spoken.append(([PROTOCOLS[protocol]], beside))
    return spoken


def ways(
    table: Table, own: Peer, active: Callable[[tuple[str, ...]], str], peer_number: Callable[[str], int]
) -> dict[Address, int]:
    """Return where each virtual address of *table* leads: VIRTUAL if it is balanced here, otherwise to a director's
    peer.

    *active* returns the one of a service's directors that it leads to.
    """
    found: dict[Address, int] = {}
    for service in table.services.values():
        for address in service.addresses:
            if service.is_directed_by(own.name):
                found[address] = VIRTUAL
            elif address not in found and service.directors:
                found[address] = peer_number(active(service.directors))
    return {address: number for address, number in found.items() if number != OWN}


def change_ways(before: Mapping[Address, int], after: Mapping[Address, int]) -> Routes | None:
    """Return the change of routes from *before* to *after*; None if there is none."""
    add: list[tuple[bytes, int, int]] = [
        (address.packed, address.max_prefixlen, number)
        for address, number in after.items()
        if before.get(address) != number
    ]
    remove: list[tuple[bytes, int]] = [
        (address.packed, address.max_prefixlen) for address in before if address not in after
    ]
    return Routes(add, remove, is_last=True) if add or remove else None
