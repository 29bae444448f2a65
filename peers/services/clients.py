"""Where clients of a service may be, whether it works from there, and which way packets and answers take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.service import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers.peer import Peer
    from peers.service import Service


@dataclass(frozen=True, slots=True)
class Place:
    """One place of clients.

    *name* is one of a few words.  *peers* are those that it is at, themselves and what is behind them; empty for places
    outside the overlay.  *way* goes on behind a colon: how it works, or, where it does not, why and what to do.
    """

    name: str
    peers: tuple[str, ...]
    works: bool
    way: str


def places_of(service: Service, peers: Mapping[str, Peer]) -> list[Place]:
    """Return the places from which clients may use *service*, among *peers* and outside; those without peers are left out."""
    is_shared = service.directors is None
    serving = {entry.peer for entry in service.entries if entry.address is None}
    agents = [name for name, peer in peers.items() if peer.is_agent or name in (service.directors or ())]
    directors = tuple(name for name in agents if service.is_directed_by(name))
    holding = tuple(name for name in peers if name in serving and name not in directors)
    others = tuple(name for name in agents if name not in directors and name not in holding)
    rest = [peer for name, peer in peers.items() if name not in agents and name not in holding]
    answers = "answers come straight from the server"
    if service.reply != DIRECT:
        answers = "answers come back through the director"
    by_wireguard = tuple(peer.name for peer in rest if peer.public_key is not None)
    places = [
        Place("director", directors, True, f"balanced there; {answers.replace('the director', 'it')}"),
        Place("peer", others, True, f"to the first director that is alive; {answers}"),
        Place(
            "server",
            holding,
            True,
            "the server there answers, whatever its checks say, because its host has the address itself",
        ),
        _wireguard(service, by_wireguard),
        Place(
            "plain",
            tuple(peer.name for peer in rest if peer.public_key is None),
            True,
            f"where a route there leads the address into the tunnel to a director; {answers}",
        ),
    ]
    outside = "by the host that they send to" if is_shared else "to the director that has the address"
    return [place for place in places if place.peers] + [
        Place(
            "lan",
            (),
            True,
            f"{outside}, which answers ARP and neighbour solicitations where it is on-link; {answers}",
        ),
        Place(
            "routed",
            (),
            True,
            f"{outside}, where routers lead them; {answers}, which a stateful firewall on the way has to see too",
        ),
    ]


def _wireguard(service: Service, names: tuple[str, ...]) -> Place:
    """Return the place behind WireGuard without an agent, whose AllowedIPs give each address to one peer."""
    if service.reply == DIRECT:
        return Place(
            "wireguard",
            names,
            False,
            "WireGuard there accepts the virtual address from one peer, and answers come from each server; write "
            'reply = "director", with the virtual address in its AllowedIPs for the director',
        )
    if service.directors is not None and len(service.directors) == 1:
        return Place(
            "wireguard",
            names,
            True,
            "with the virtual address in its AllowedIPs for the director; answers come back through it",
        )
    return Place(
        "wireguard",
        names,
        False,
        "WireGuard there sends the virtual address to one director, and no other can take over; write one name as "
        "directors",
    )
