"""The setup of a real server without an agent: a kernel tunnel, the virtual addresses, and four settings.

The commands are for a Linux host.  Nothing here runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.encap import ENCAPSULATIONS
from overlay.encap.encapsulation import Ends
from overlay.services.translating import FAMILIES
from overlay.tunnels import overheads_of
from peers.encapsulation import IPIP
from peers.prefixes import PrefixMap
from peers.tunnel import own_encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peers.addresses import Address
    from peers.peer import Peer
    from peers.table import Table

# Specification
IP_HEADERS = {4: 20, 6: 40}  # RFC 791, RFC 8200
TCP_HEADER = 20  # RFC 9293

# Ours
UNDERLAY_MTU = 1500  # if the file does not set mtu
DEVICES = {4: ("ipip", "tunl0"), 6: ("sit", "sit0")}
"""The kernel module and device for ``ipip`` over IPv4, by the version of the IP inside."""
OVER_IPV6, ANOTHER = "services", "TUNNEL"  # names of devices that are made, and of the reader's own


@dataclass(frozen=True, slots=True)
class Command:
    """One command for a root shell, and its reason."""

    command: str
    why: str


def commands_by_peer(table: Table) -> dict[str, list[Command]]:
    """Return the commands for each peer without an agent, and without WireGuard, that is a server of some service."""
    found: dict[str, list[Command]] = {}
    for service in table.services.values():
        for entry in service.entries:
            peer = table.peers[entry.peer]
            if not peer.is_agent and peer.public_key is None and peer.name not in found:
                found[peer.name] = list(_commands(table, peer))
    return found


def _commands(table: Table, peer: Peer) -> Iterator[Command]:
    services = [each for each in table.services.values() if each.entries_at(peer.name)]
    addresses = list(dict.fromkeys(address for each in services for address in each.addresses))
    ready: set[str] = set()
    for version in (4, 6):
        inside = [address for address in addresses if address.version == version]
        if inside:
            device, commands = _device(table, peer, version)
            yield from commands if device not in ready else ()
            ready.add(device)
            yield from _for_addresses(table, version, device, inside)
    for version in (4, 6):
        spoken = [
            address
            for each in services
            if "tcp" in each.protocols
            for address in each.addresses
            if address.version == version
        ]
        if spoken:
            size = _tunnel_mtu(table) - IP_HEADERS[version] - TCP_HEADER
            yield Command(
                _segment_rule(version, dict.fromkeys(spoken), size),
                "clients then send segments that fit into the tunnel; the answer that announces this does not pass a "
                "director",
            )


def _segment_rule(version: int, addresses: Iterable[Address], size: int) -> str:
    """Return the command that makes answers from *addresses* ask for segments of at most *size* bytes.

    The alternative, advmss, would be needed on each route to a client, and is lost when a route is renewed.
    """
    chain = "inet services answers"
    family = FAMILIES[version]
    sources = ", ".join(map(str, addresses))
    rule = (
        f"{family} saddr {{ {sources} }} tcp flags syn "
        f"tcp option maxseg size > {size} tcp option maxseg size set {size}"
    )
    return (
        f"nft 'add table inet services; add chain {chain} {{ type filter hook output priority mangle; }}; "
        f"add rule {chain} {rule}'"
    )


def _device(table: Table, peer: Peer, version: int) -> tuple[str, list[Command]]:
    """Return the device that receives packets of IP *version* from the tunnel of any director, and the commands that
    make it.
    """
    if own_encapsulation(table.network, peer) != IPIP:
        return ANOTHER, []
    endpoint = None if peer.endpoint is None else peer.endpoint.address
    up = "until then no packets are taken out of the tunnel"
    if endpoint is not None and endpoint.version == 6:
        make = f"ip -6 tunnel add {OVER_IPV6} mode any local {endpoint} remote :: encaplimit none"
        commands = [
            Command(make, "takes packets from any director"),
            Command(f"ip link set {OVER_IPV6} up", up),
        ]
        return OVER_IPV6, commands
    module, device = DEVICES[version]
    return device, [
        Command(f"modprobe {module}", f"makes {device}, which takes packets from any director"),
        Command(f"ip link set {device} up", up),
    ]


def _for_addresses(
    table: Table, version: int, device: str, addresses: Iterable[Address]
) -> Iterator[Command]:
    carried = PrefixMap((prefix, True) for prefix in table.network.prefixes)
    on_lan = [address for address in addresses if carried.lookup(address) is None]
    for address in addresses:
        length = address.max_prefixlen
        options = " nodad" if version == 6 else ""
        yield Command(
            f"ip address add {address}/{length} dev {device}{options}",
            "the address that the server answers from",
        )
    if version == 4:
        yield Command(
            f"sysctl -w net.ipv4.conf.{device}.rp_filter=2",
            "packets of clients come out of the tunnel, although the way back is different",
        )
        if on_lan:
            yield Command(
                "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
                f"on a LAN where {on_lan[0]} is on-link, only the director answers for it",
            )


def _tunnel_mtu(table: Table) -> int:
    """Return the size of the largest packet that all tunnels carry, which is the MTU of a director's device."""
    network = table.network
    if network.mtu is not None:
        return network.mtu
    endpoints = [peer.endpoint.address for peer in table.peers.values() if peer.endpoint is not None]
    outer = 6 if any(address is not None and address.version == 6 for address in endpoints) else 4
    ends = Ends(
        network.gre_key,
        has_checksum=bool(network.gre_checksum),
        has_sequence=bool(network.gre_sequence),
    )
    used = {own_encapsulation(network, peer) for peer in table.peers.values()}
    return UNDERLAY_MTU - max(overheads_of(ENCAPSULATIONS[name], ends, is_tap=False)[outer] for name in used)
