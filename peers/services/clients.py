"""Where clients of a service may be, whether it works from there, and which way packets and answers take."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.service import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.peer import Peer
    from peers.service import Service


@dataclass(frozen=True, slots=True)
class ClientPlace:
    """One place of clients.

    *name* is one of a few words.  *peers* are those that it is at, themselves and what is behind them; empty for places
    outside the overlay.  *way* goes on behind a colon: how it works, or, where it does not, why and what to do.
    """

    name: str
    works: bool
    way: str
    peers: tuple[str, ...] = ()


def places_of(service: Service, peers: Mapping[str, Peer]) -> list[ClientPlace]:
    """Return the places from which clients may use *service*, among *peers* and outside;
    those without peers are left out.
    """
    named = set(service.directors or ())
    serving = {entry.peer for entry in service.entries if entry.address is None}
    found: dict[str, list[str]] = defaultdict(list)
    for name, peer in peers.items():
        is_agent = peer.is_agent or name in named
        if is_agent and (service.directors is None or name in named):
            found["director"].append(name)
        elif name in serving:
            found["server"].append(name)
        elif is_agent:
            found["peer"].append(name)
        else:
            found["plain" if peer.public_key is None else "wireguard"].append(name)
    answers = "answers come straight from the server"
    if service.reply != DIRECT:
        answers = "answers come back through the director"
    inside = [
        ClientPlace(
            "director",
            True,
            f"balanced there; {answers.replace('the director', 'it')}",
            tuple(found["director"]),
        ),
        ClientPlace("peer", True, f"to the first director that is alive; {answers}", tuple(found["peer"])),
        ClientPlace(
            "server",
            True,
            "the server there answers, whatever its checks say, because its host has the address itself",
            tuple(found["server"]),
        ),
        wireguard_place(service, tuple(found["wireguard"])),
        ClientPlace(
            "plain",
            True,
            f"where a route there leads the address into the tunnel to a director; {answers}",
            tuple(found["plain"]),
        ),
    ]
    outside = (
        "by the host that they send to"
        if service.directors is None
        else "to the director that has the address"
    )
    return [place for place in inside if place.peers] + [
        ClientPlace(
            "lan",
            True,
            f"{outside}, which answers ARP and neighbour solicitations where it is on-link; {answers}",
        ),
        ClientPlace(
            "routed",
            True,
            f"{outside}, where routers lead them; {answers}, which a stateful firewall on the way has to see too",
        ),
    ]


def wireguard_place(service: Service, names: tuple[str, ...]) -> ClientPlace:
    """Return the place behind WireGuard without an agent, whose AllowedIPs give each address to one peer."""
    if service.reply == DIRECT:
        return ClientPlace(
            "wireguard",
            False,
            "WireGuard there accepts the virtual address from one peer, and answers come from each server; write "
            'reply = "director", with the virtual address in its AllowedIPs for the director',
            names,
        )
    if service.directors is not None and len(service.directors) == 1:
        return ClientPlace(
            "wireguard",
            True,
            "with the virtual address in its AllowedIPs for the director, and no tunnel to the servers themselves; "
            "answers come back through the director",
            names,
        )
    return ClientPlace(
        "wireguard",
        False,
        "WireGuard there sends the virtual address to one director, and no other can take over; write one name as "
        "directors",
        names,
    )
