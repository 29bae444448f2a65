"""What virtual services require of one host: routes into the tun, addresses to hold, and packet filter rules.

Nothing here touches the host.  A host that is a server but not a director holds an address, as one of its tun; answers
then have it as their source.  If the host must not hold it, because it has to keep leading into the tun, or if a
container behind the host is the server, packets that come out of the tunnel are translated, and the kernel's connection
tracking translates the answers back (overlay.services.translating).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.linux import LOOSE
from overlay.services.floods import limiting_chains
from overlay.services.translating import Translating
from peers.encapsulation import is_encrypted
from peers.service import DIRECTOR

if TYPE_CHECKING:
    from peers.addresses import Address
    from peers.peer import Peer
    from peers.service import Service
    from peers.table import Table

# Specification
HEADERS = {4: 40, 6: 60}  # bytes of IP and TCP, which an MSS does not count: RFC 9293 section 3.7.1


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the services require of one host.

    *routed* are virtual addresses that lead into the tun, *held* those that are addresses of the tun.  *rules* are the
    chains of a table of the family inet, as nft reads them; empty if there is nothing to translate.  *limits* are
    chains of the same table that protect a director, which can balance without them.  *returned* are addresses whose
    answers go back through the director.  *balances* is whether this host is a director, and *comes_back* whether its
    own packets to a virtual address may come back out of the tun.
    """

    routed: tuple[Address, ...] = ()
    held: tuple[Address, ...] = ()
    rules: str = ""
    limits: str = ""
    returned: tuple[Address, ...] = ()
    balances: bool = False
    comes_back: bool = False

    def settings(self, interface: str) -> dict[str, int]:
        """Return the settings of the tun *interface* without which clients' packets that come out of it are dropped.

        Their sources can be any address, including this host's own if the virtual address is not held.  A director
        sends other hosts' requests back into the tun, as a router does.
        """
        wanted = {f"ipv4/conf/{interface}/forwarding": 1} if self.balances else {}
        if not self.held and not self.rules:
            return wanted
        wanted[f"ipv4/conf/{interface}/rp_filter"] = LOOSE
        if self.comes_back:
            wanted[f"ipv4/conf/{interface}/accept_local"] = 1
        return wanted


NONE = Delivery()


def plan_delivery(table: Table, own: Peer, interface: str, mtu: int, mark: int) -> Delivery:
    """Return what the services of *table* require of the host of *own*, whose tun *interface* has the MTU *mtu*.

    Answers that are translated back and go back through the director get the *mark* of the kernel's packets.
    """
    if not table.services:
        return NONE
    services = table.services.values()
    directed = {address for each in services if each.is_directed_by(own.name) for address in each.addresses}
    at_host = {
        address
        for each in services
        for address in each.addresses
        if any(entry.address is None for entry in each.entries_at(own.name))
    }
    addresses = dict.fromkeys(address for each in services for address in each.addresses)
    held = {address: None for address in addresses if address in at_host - directed}
    translating = Translating(interface, own, held, mark)
    returned: dict[Address, None] = {}
    for service in services:
        entries = service.entries_at(own.name)
        for address in service.addresses if entries else ():
            translating.serve(service, address, entries)
            if service.reply == DIRECTOR:
                returned[address] = None
            if _has_unencrypted_director(table, service, own):
                translating.limit(address, mtu - HEADERS[address.version])
    return Delivery(
        routed=tuple(address for address in addresses if address not in held),
        held=tuple(held),
        rules=translating.chains(),
        limits=limiting_chains((each for each in services if each.is_directed_by(own.name)), interface),
        returned=tuple(returned),
        balances=bool(directed),
        comes_back=translating.passes_addresses,
    )


def _has_unencrypted_director(table: Table, service: Service, own: Peer) -> bool:
    """Return whether a director sends to *own* unencrypted, so that clients' packets must fit the tunnel unchanged."""
    directors = table.peers.values() if service.directors is None else map(table.peers.get, service.directors)
    return any(
        director is not None
        and director is not own
        and not is_encrypted(table.encapsulation_between(director, own))
        for director in directors
    )
