"""What virtual services ask of one host: what leads into the tun, what the host holds, and rules for its packet filter.

Nothing here touches the host.  An address is held, as one of the tun, by a host that is a server and no director;
answers then have it as their source.  Where it must not be held, since it has to go on leading into the tun, or where a
container behind the host is the server, packets that come out of the tunnel are translated, and the kernel's connection
tracking translates the answers back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from overlay.linux import LOOSE
from peers.encapsulation import is_encrypted
from peers.service import DIRECTOR, EVERY_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peers.addresses import Address
    from peers.peer import Peer
    from peers.service import Ports, Server, Service
    from peers.table import Table

Ranges: TypeAlias = "tuple[Ports, ...]"

# Specification
# nftables: hooks and their usual priorities, in include/uapi/linux/netfilter_ipv4.h
DESTINATION_NAT, MANGLE = -100, -150
HEADERS = {4: 40, 6: 60}  # bytes of IP and TCP, which an MSS does not count: RFC 9293 section 3.7.1

FAMILIES = {4: "ip", 6: "ip6"}  # as nft names what is of one IP version

# Ours


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the services of one host come to.

    *routed* are virtual addresses that lead into the tun, *held* those that are addresses of the tun.  *rules* are the
    chains of a table of the family inet, as nft reads them; empty where there is nothing to translate.  *returned* are addresses whose
    answers go back through the director.  Whether this host is a director is *balances*.
    """

    routed: tuple[Address, ...] = ()
    held: tuple[Address, ...] = ()
    rules: str = ""
    returned: tuple[Address, ...] = ()
    balances: bool = False

    def settings(self, interface: str) -> dict[str, int]:
        """Return the settings of the tun *interface* without which packets of clients are dropped on their way out of it.

        Their sources are anywhere, and where this host is a director as well, its own.  A director sends what other
        hosts of the overlay ask back into the tun, as a router does.
        """
        wanted = {f"ipv4/conf/{interface}/forwarding": 1} if self.balances else {}
        if not self.held and not self.rules:
            return wanted
        wanted[f"ipv4/conf/{interface}/rp_filter"] = LOOSE
        if not self.held:
            wanted[f"ipv4/conf/{interface}/accept_local"] = 1
        return wanted


NONE = Delivery()


def plan_delivery(table: Table, own: Peer, interface: str, mtu: int) -> Delivery:
    """Return what the services of *table* ask of the host of *own*, whose tun *interface* has *mtu* bytes."""
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
    translations: list[str] = []
    marked: dict[Address, None] = {}
    limits: dict[Address, int] = {}
    returned: dict[Address, None] = {}
    for service in services:
        entries = service.entries_at(own.name)
        for address in service.addresses if entries else ():
            for entry in entries:
                if service.dscp_of(entry):
                    marked[address] = None
                translations += _translate(service, entry, address, own, interface, is_held=address in held)
            if service.reply == DIRECTOR:
                returned[address] = None
            if _has_narrow_way(table, service, own):
                limits[address] = mtu - HEADERS[address.version]
    return Delivery(
        routed=tuple(address for address in addresses if address not in held),
        held=tuple(held),
        rules=_chains(interface, translations, marked, limits),
        returned=tuple(returned),
        balances=bool(directed),
    )


def _translate(
    service: Service, entry: Server, address: Address, own: Peer, interface: str, *, is_held: bool
) -> Iterable[str]:
    """Yield the rules for what is for *entry* at *address*; none where it is delivered as it comes."""
    version = address.version
    target = entry.address
    if target is None:
        target = (
            address if is_held else next((each for each in own.addresses if each.version == version), None)
        )
    if target is None or target.version != version or (target == address and entry.port is None):
        return
    ip, to = FAMILIES[version], f"{target}" if version == 4 else f"[{target}]"
    dscp = service.dscp_of(entry)
    where = f'iifname "{interface}" {ip} daddr {address}' + (f" {ip} dscp {dscp}" if dscp else "")
    for protocol in service.protocols:
        ports = service.ports or (EVERY_PORT,)
        port = f":{entry.port}" if entry.port is not None else ""
        yield f"{where} {protocol} dport {_ports(ports)} dnat {ip} to {to if port else target}{port}"
    for check in service.checked_ports():
        yield f"{where} tcp dport {check} dnat {ip} to {target}"
    if target != address:
        echo = "icmp type echo-request" if version == 4 else "icmpv6 type echo-request"
        yield f"{where} {echo} dnat {ip} to {target}"


def _ports(ranges: Ranges) -> str:
    listed = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges]
    return listed[0] if len(listed) == 1 else "{ " + ", ".join(listed) + " }"


def _has_narrow_way(table: Table, service: Service, own: Peer) -> bool:
    """Return whether a director sends to *own* in the clear, where what clients send has to fit the tunnel as it is."""
    directors = table.peers.values() if service.directors is None else map(table.peers.get, service.directors)
    return any(
        director is not None
        and director is not own
        and not is_encrypted(table.encapsulation_between(director, own))
        for director in directors
    )


def _chains(
    interface: str, translations: list[str], marked: Iterable[Address], limits: dict[Address, int]
) -> str:
    """Return the chains that have these rules."""
    chains: list[str] = []
    if translations:
        head = f"type nat hook prerouting priority {DESTINATION_NAT};"
        chains.append(_chain("translate", head, dict.fromkeys(translations)))
    if marked:
        unmark = []
        for version, ip in FAMILIES.items():
            at = [f"{address}" for address in marked if address.version == version]
            if at:
                came, clear = f'iifname "{interface}" {ip} dscp != cs0', f"{ip} dscp set cs0"
                unmark += [
                    f"{came} ct status dnat {clear}",
                    f"{came} {ip} daddr {{ {', '.join(at)} }} {clear}",
                ]
        chains.append(
            _chain("unmark", f"type filter hook prerouting priority {DESTINATION_NAT + 10};", unmark)
        )
    if limits:
        sizes = [
            f"{FAMILIES[address.version]} saddr {address} tcp flags syn / syn,rst "
            f"tcp option maxseg size > {size} tcp option maxseg size set {size}"
            for address, size in limits.items()
        ]
        chains.append(_chain("clamp", f"type filter hook postrouting priority {MANGLE};", sizes))
    return "".join(chains)


def _chain(name: str, head: str, rules: Iterable[str]) -> str:
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"\tchain {name} {{\n\t\t{head} policy accept;\n{lines}\t}}\n"
