"""What services contradict: each other, the peers, and themselves.  Each check raises KeyProblem for the first it
finds.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from peers.addresses import IPV6_MINIMUM_MTU, host_prefix
from peers.errors import KeyProblem, format_keys
from peers.peer import TAP
from peers.prefixes import PrefixMap
from peers.service import DIRECTOR, EVERY_PORT, MOST_DSCP
from peers.services.groups import check_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from peers.addresses import Address
    from peers.errors import Keys
    from peers.peer import Network, Peer
    from peers.service import Check, Ports, Server, Service

# Ours
WIDEST = EVERY_PORT[1]  # of a service without ports: a range of all of them is narrower, 65534

EVERYBODY = "all"  # in the place of a list of directors

WITH_PORT = ("tcp", "http", "https", "udp", "dns")  # kinds of checks that go to a port of the service


def check_services(network: Network, peers: Mapping[str, Peer], services: Mapping[str, Service]) -> None:
    """Refuse *services* that contradict each other or what else the file says."""
    if not services:
        return
    _check_network(network, services.values())
    for service in services.values():
        _check_names(service, peers)
        _check_hosts(service, peers)
        _check_itself(service)
        _check_checks(service)
    _check_twins(services.values())
    _check_addresses(peers, services.values())
    _check_containers(peers, services.values())
    check_groups(services)


def _check_network(network: Network, services: Collection[Service]) -> None:
    for service in services:
        if network.device == TAP:
            raise KeyProblem(
                ("services", service.name), 'is for a tun, and network.device is "tap"; write device = "tun"'
            )
        if network.mtu is None or network.mtu >= IPV6_MINIMUM_MTU:
            continue
        for address in service.addresses:
            if address.version == 6:
                raise KeyProblem(
                    ("network", "mtu"),
                    f"{network.mtu} is too small for IPv6, and {_named(service)} has {address}; "
                    f"write at least {IPV6_MINIMUM_MTU} or remove it",
                )


def places(service: Service) -> Iterator[tuple[Keys, Server]]:
    """Yield each entry of *service* with its place in the file, the sorry server last."""
    keys = ("services", service.name, "servers")
    for index, server in enumerate(service.servers):
        yield (*keys, index) if len(service.servers) > 1 else keys, server
    if service.sorry is not None:
        yield ("services", service.name, "sorry"), service.sorry


# The peers that a service names


def _check_names(service: Service, peers: Mapping[str, Peer]) -> None:
    directors = service.directors or ()
    keys = ("services", service.name, "directors")
    for index, name in enumerate(directors):
        place: Keys = (*keys, index) if len(directors) > 1 else keys
        _check_name(place, name, peers)
        if peers[name].agent is False:
            raise KeyProblem(
                place, f"{name} runs no agent (agent = false), so it cannot balance; name a peer that does"
            )
    for place, server in places(service):
        _check_name(place, server.peer, peers)


def _check_name(place: Keys, name: str, peers: Mapping[str, Peer]) -> None:
    if name in peers:
        return
    if name == EVERYBODY and "directors" in place:
        raise KeyProblem(
            place, f'has "{EVERYBODY}" in a list; write directors = "{EVERYBODY}" for every node'
        )
    close = difflib.get_close_matches(name, peers, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"write a [peers.{name}] table, or the name of a peer"
    raise KeyProblem(place, f"{name} is not a peer; {remedy}")


def _check_hosts(service: Service, peers: Mapping[str, Peer]) -> None:
    """Refuse what an entry asks of a host without an agent, and more entries at one host than a packet can tell
    apart.
    """
    at_host: defaultdict[str, int] = defaultdict(int)
    for place, server in places(service):
        at_host[server.peer] += 1
        if at_host[server.peer] > MOST_DSCP:
            raise KeyProblem(
                place, f"is one of more than {MOST_DSCP} servers at one peer; write another service"
            )
        if peers[server.peer].is_agent:
            continue
        _check_wireguard(service, place, peers[server.peer])
        who = f"{_peer(server.peer)} runs no agent"
        remedy = "or agent = true at the peer if it does"
        if server.address is not None:
            raise KeyProblem(
                (*place, "address"),
                f"is behind a host that has to pass it on, and {who}; make {server.address} a peer of its own, "
                f"{remedy}",
            )
        if server.port is not None and service.ports != ((server.port, server.port),):
            raise KeyProblem(
                (*place, "port"),
                f"is another than that of the service, and {who} that could map it; remove it and let the server "
                f"listen on the port of the service, {remedy}",
            )
        if service.reply == DIRECTOR:
            raise KeyProblem(
                ("services", service.name, "reply"),
                f'is "director", and {who} that could send answers there; write "direct", {remedy}',
            )


def _check_wireguard(service: Service, place: Keys, peer: Peer) -> None:
    """Refuse a server that lets clients in from one of several directors alone,
    though the checks of all would succeed.
    """
    if peer.public_key is not None and len(service.directors or ()) != 1:
        raise KeyProblem(
            place,
            f"{_peer(peer.name)} has WireGuard and no agent, which takes what clients send from one director alone, "
            f"and {_named(service)} has {'every node' if service.directors is None else len(service.directors)} for "
            "it; write one director, or agent = true at the peer if it runs one",
        )


# A service by itself


def _check_itself(service: Service) -> None:
    keys = ("services", service.name)
    if service.one_packet and service.protocols != ("udp",):
        raise KeyProblem(
            (*keys, "one_packet"),
            "is for UDP, where each datagram stands alone, and the protocol is "
            f'{" and ".join(service.protocols)}; write protocol = "udp", or remove it',
        )
    if service.hysteresis and service.hysteresis >= service.quorum:
        raise KeyProblem(
            (*keys, "hysteresis"),
            f"is {service.hysteresis} and the quorum {service.quorum}, so that the quorum would not be lost before "
            "the last server; write less than the quorum",
        )
    if service.sorry is not None and service.sorry.weight == 0:
        raise KeyProblem((*keys, "sorry", "weight"), "is 0, which takes nothing; remove it")
    versions = {address.version for address in service.addresses}
    for place, server in places(service):
        if server.address is not None and server.address.version not in versions:
            raise KeyProblem(
                (*place, "address"),
                f"{server.address} is of IPv{server.address.version}, and the service has no address of that "
                "family; write one of the same family, or give the service one more",
            )
        if server.address is not None and len(versions) > 1:
            raise KeyProblem(
                (*place, "address"),
                f"{server.address} cannot take what comes to the service's IPv{10 - server.address.version} address; "
                "write a service for each family",
            )


def _check_checks(service: Service) -> None:
    shared = {id(check) for check in service.checks}
    for place, server in places(service):
        for check in service.checks_of(server):
            if id(check) in shared:
                _check_fits(service, check, ("services", service.name, "check"))
            else:
                _check_fits(service, check, (*place, "check"))
    for check in service.checks:
        _check_fits(service, check, ("services", service.name, "check"))


def _check_fits(service: Service, check: Check, place: Keys) -> None:
    if check.port is not None or check.kind not in WITH_PORT:
        return
    name = f"checks.{check.name}" if check.name else f"kind {check.kind}"
    if check.protocol not in service.protocols:
        spoken = " and ".join(service.protocols)
        raise KeyProblem(
            place,
            f"does not fit: {name} speaks {check.protocol} and the service {spoken}; "
            "write a kind that does, or the port of something else at the server, such as port = 8080",
        )
    if not service.ports:
        raise KeyProblem(
            place,
            f"has no port, and neither has the service; write the one to check, such as port = 80 for {name}",
        )


# Services with each other, and with addresses of hosts


def _check_twins(services: Iterable[Service]) -> None:
    """Refuse two services that an address, a protocol and a port leave undecided: the narrower range of ports wins."""
    found: defaultdict[tuple[Address, str, int], list[tuple[Ports, Service]]] = defaultdict(list)
    for service in services:
        for ports in service.ports or (EVERY_PORT,):
            width = ports[1] - ports[0] if service.ports else WIDEST
            for address in service.addresses:
                for protocol in service.protocols:
                    found[address, protocol, width].append((ports, service))
    for (address, protocol, width), claims in found.items():
        claims.sort(key=lambda claim: claim[0])
        for (ports, earlier), (others, later) in pairwise(claims):
            if others[0] <= ports[1]:
                shown = "every port" if width == WIDEST else f"port {others[0]}"
                raise KeyProblem(
                    ("services", later.name, "ports" if later.ports else "address"),
                    f"takes {shown} of {address} by {protocol}, which {_named(earlier)} takes too; "
                    "write other ports, or narrower ones, which win",
                )


def _check_addresses(peers: Mapping[str, Peer], services: Collection[Service]) -> None:
    """Refuse virtual addresses that a host has: its packets to itself would go to a server, or a server's to it."""
    holders = {
        (address.version, int(address)): (service, index)
        for service in services
        for index, address in enumerate(service.addresses)
    }

    def refuse(address: Address, what: str) -> None:
        found = holders.get((address.version, int(address)))
        if found is not None:
            raise KeyProblem(
                _address_place(*found), f"{address} is also {what}; write an address that no host has"
            )

    for peer in peers.values():
        for number, address in zip(peer.numbers, peer.addresses, strict=True):
            if number in holders:
                refuse(address, f"the address of {_peer(peer.name)}")
        endpoint = None if peer.endpoint is None else peer.endpoint.address
        if endpoint is not None and (endpoint.version, int(endpoint)) in holders:
            refuse(endpoint, f"the endpoint of {_peer(peer.name)}")
        for address in peer.listen:
            refuse(address, f"an address that {_peer(peer.name)} listens on")
        for (version, shift, bits), subnet in zip(peer.places, peer.subnets, strict=True):
            if shift == 0 and (version, bits) in holders:
                refuse(subnet.network_address, f"a subnet of {_peer(peer.name)}")
    for service in services:
        for place, server in places(service):
            if server.address is not None:
                refuse(server.address, f"the address of a server, {format_keys(place)}")


def _check_containers(peers: Mapping[str, Peer], services: Collection[Service]) -> None:
    """Refuse containers that are behind another peer than the one where the file says they are."""
    entries = [each for service in services for each in places(service) if each[1].address is not None]
    if not entries:
        return
    owners = owners_of(peers.values())
    for place, server in entries:
        assert server.address is not None
        owner = owners.lookup(server.address)
        if owner is not None and owner != server.peer:
            raise KeyProblem(
                (*place, "address"),
                f"{server.address} is behind {_peer(owner)} and not behind {server.peer}; write that peer, "
                "or another address",
            )


def owners_of(peers: Iterable[Peer]) -> PrefixMap[str]:
    """Return the names of *peers* by what leads to them: their addresses and subnets."""
    owners: PrefixMap[str] = PrefixMap()
    for peer in peers:
        for place in peer.places:
            owners.insert_at(place, peer.name)
    for peer in peers:
        for number, address in zip(peer.numbers, peer.addresses, strict=True):
            if owners.lookup_number(*number) != peer.name:
                owners.insert(host_prefix(address), peer.name)
    return owners


def _address_place(service: Service, index: int) -> Keys:
    keys = ("services", service.name, "address")
    return (*keys, index) if len(service.addresses) > 1 else keys


def _named(service: Service) -> str:
    return format_keys(("services", service.name))


def _peer(name: str) -> str:
    return format_keys(("peers", name))
