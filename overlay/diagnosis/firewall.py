"""Packet filters of the host that drop or change what arrives through the tunnel."""

from __future__ import annotations

import contextlib
import heapq
import socket
from dataclasses import replace
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.diagnosis.services import directed, lans
from overlay.host.firewall.iptables import PROTOCOLS
from overlay.host.firewall.rules import EGRESS, INGRESS, INVALID, Field, Packet, Span, Verdict
from peers.service import DIRECTOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from overlay.diagnosis.facts import Facts
    from overlay.host.firewall.rules import Decision, Firewall, Table
    from overlay.host.plan import IPAddress, IPNetwork
    from peers.service import Service

# Specification: nft(8), the hooks that a packet to this host passes, and one from it
INBOUND = (INGRESS, "prerouting", "input")
OUTBOUND = ("output", "postrouting", EGRESS)

# Ours
SUBNETS = 8  # own subnets that are tried
ENDPOINTS = 8  # endpoints that are tried
# Public addresses that are not a peer's, for what a filter does to everybody's packets; nothing is sent there
ANYBODY = {4: ip_address("9.9.9.9"), 6: ip_address("2620:fe::9")}
STATIONS = 16  # of the host's own addresses named by rules, as container tools do for each container


def check_firewall(facts: Facts) -> Iterator[Finding]:
    """Yield what the packet filters of this host certainly do to packets of the tunnel.

    It tries the first packets of connections between the node's own subnets and a peer's, in both directions; of
    clients of a service that is balanced or served here; and of a handshake that a peer begins.  If the filters were
    not read, nothing is known.
    """
    firewall, device = facts.firewall, facts.device.name
    if firewall is None:
        return
    found: dict[str, Finding] = {}
    if (
        not facts.node.is_tap
    ):  # its packets are bridged, or belong to stations that the filters know nothing about
        for own, inside, peer in pairs(facts):
            _try_forwarding(
                firewall, Packet(peer, own, device, inside), Packet(own, peer, inside, device), found
            )
            _try_raw(facts, firewall, Packet(peer, own, device), found)
            _try_masquerade(facts, firewall, Packet(own, peer, inside, device), found)
        _try_directing(facts, firewall, found)
        _try_serving(facts, firewall, found)
    _try_port(facts, firewall, found)
    _try_output(facts, firewall, found)
    yield from found.values()


def pairs(facts: Facts) -> Iterator[tuple[IPAddress, str, IPAddress]]:
    """Yield an address in each subnet behind this host, the interface that leads there, and an address of a peer."""
    peers = _behind_peers(facts, {each.version for each in facts.node.own.subnets})
    behind = (each for each in facts.node.own.subnets if each.num_addresses > 1 and each.version in peers)
    for subnet in islice(behind, SUBNETS):
        own = _first(subnet)
        route = facts.routes.match(own)
        if route is None or route.index == facts.device.index or own.version != subnet.version:
            continue
        if route.is_local:
            # The host's own address, such as a bridge's: its neighbours are reached by the same interface.
            own += 1
        try:
            yield own, socket.if_indextoname(route.index), peers[subnet.version]
        except OSError:  # gone meanwhile
            continue


def _behind_peers(facts: Facts, versions: Set[int]) -> dict[int, IPAddress]:
    """Return an address behind some peer for each IP version in *versions* that peers have."""
    found: dict[int, IPAddress] = {}
    for peer in facts.node.others:
        for prefix in peer.subnets:
            if prefix.version in versions and prefix.version not in found:
                found[prefix.version] = _first(prefix)
        if found.keys() >= versions:
            break
    return found


def _first(prefix: IPNetwork) -> IPAddress:
    return prefix.network_address + (prefix.prefixlen < prefix.max_prefixlen)


def _try_forwarding(firewall: Firewall, into: Packet, out: Packet, found: dict[str, Finding]) -> None:
    if "firewall_forward" in found:
        return
    decisions = [(packet, firewall.decides(packet, "forward", Verdict.DROP)) for packet in (into, out)]
    dropped = [(packet, decision) for packet, decision in decisions if decision is not None]
    if not dropped:
        return
    ways = " and ".join(f"from {packet.enters} to {packet.leaves}" for packet, _ in dropped)
    device = into.enters or ""
    directions = ["in" if packet is into else "out" for packet, _ in dropped]
    found["firewall_forward"] = Finding(
        "firewall_forward",
        f"the firewall of this host drops packets that are forwarded {ways} ({_place(dropped[0][1])})",
        f"run {_allow(dropped[0][1], device, directions)}, or start with --forward",
    )


def _place(decision: Decision) -> str:
    table = decision.table
    where = f"{table.name} of {table.program}" if table.program != "nft" else f"{table.family} {table.name}"
    by = "the policy" if decision.is_policy else "a rule"
    return f"by {by} of chain {decision.chain} in table {where}"


def _allow(decision: Decision, device: str, directions: list[str]) -> str:
    """Return the command that lets packets from and to *device* pass."""
    table, chain = decision.table, decision.base
    if table.program == "nft":
        keys = {"in": "iifname", "out": "oifname"}
        commands = [
            f'nft insert rule {table.family} {table.name} {chain} {keys[each]} "{device}" accept'
            for each in directions
        ]
        return f"`{' && '.join(commands)}`, or change the program that makes these rules"
    if any(name.startswith("ufw-") for name in table.chains):
        return f"`{' && '.join(f'ufw route allow {each} on {device}' for each in directions)}`"
    if "DOCKER-USER" in table.chains:
        chain = "DOCKER-USER"
    options = {"in": "-i", "out": "-o"}
    commands = [f"{table.program} -I {chain} {options[each]} {device} -j ACCEPT" for each in directions]
    return f"`{' && '.join(commands)}`"


def _try_raw(facts: Facts, firewall: Firewall, packet: Packet, found: dict[str, Finding]) -> None:
    """Docker 28 drops packets for a container's address that arrive by another interface than its bridge, before
    anything else.
    """
    assert packet.destination is not None
    own = [each for each in facts.node.own.subnets if packet.destination in each]
    for station in (packet.destination, *_named(firewall, Field.DESTINATION, own)):
        if "firewall_raw" in found:
            return
        tried = Packet(packet.source, station, packet.enters)
        decision = firewall.decides(tried, "prerouting", Verdict.DROP)
        if decision is not None:
            found["firewall_raw"] = Finding(
                "firewall_raw",
                f"the firewall of this host drops packets from {packet.enters} for {station}, before they are "
                f"forwarded "
                f"({_place(decision)})",
                "where these rules are Docker's, start dockerd with --allow-direct-routing (Docker 28.2 or later), "
                "which no rule of --forward can do, or make the network with "
                f"`-o com.docker.network.bridge.trusted_host_interfaces={packet.enters}`",
            )


def _try_masquerade(facts: Facts, firewall: Firewall, packet: Packet, found: dict[str, Finding]) -> None:
    own = [each for each in facts.node.own.subnets if packet.source in each]
    for station in (packet.source, *_named(firewall, Field.SOURCE, own)):
        if "masquerade" in found:
            return
        tried = Packet(station, packet.destination, packet.enters, packet.leaves)
        decision = firewall.decides(tried, "postrouting", Verdict.MASQUERADE, "nat")
        if decision is None:
            continue
        subnet, table, device = own[0], decision.table, packet.leaves
        family = "ip" if subnet.version == 4 else "ip6"
        command = (
            f'nft insert rule {table.family} {table.name} {decision.base} {family} saddr {subnet} oifname "{device}" '
            "accept"
            if table.program == "nft"
            else f"{table.program} -t nat -I {decision.base} -s {subnet} -o {device} -j ACCEPT"
        )
        found["masquerade"] = Finding(
            "masquerade",
            f"packets from {subnet} into the tunnel get an address of this host as their source, which hides the "
            f"sender ({_place(decision)})",
            f"run `{command}`, or start with --masquerade, which keeps it",
        )


def _named(firewall: Firewall, field: Field, subnets: Iterable[IPNetwork]) -> list[IPAddress]:
    """Return addresses in *subnets* that rules name individually."""
    within = [(int(each.network_address), int(each.broadcast_address), each) for each in subnets]
    found: dict[int, IPAddress] = {}
    for table in firewall.tables:
        for chain in table.chains.values():
            for rule in chain.rules:
                for match in rule.matches:
                    if match.field != field:
                        continue
                    for span in match.values:
                        if isinstance(span, Span) and span.first == span.last:
                            for low, high, subnet in within:
                                if span.version == subnet.version and low <= span.first <= high:
                                    found[span.first] = type(subnet.network_address)(span.first)
                    if len(found) >= STATIONS:
                        return list(found.values())
    return list(found.values())


def _try_directing(facts: Facts, firewall: Firewall, found: dict[str, Finding]) -> None:
    """Check whether packets of peers and the LAN to a service that is balanced here are routed into the tun."""
    device = facts.device.name
    services = list(directed(facts))
    clients = _behind_peers(facts, {address.version for each in services for address in each.addresses})
    for service in services:
        for address in service.addresses:
            client = clients.get(address.version)
            if client is not None and service.directors is not None:
                packet = Packet(client, address, device, device)
                _try_forwarding(firewall, packet, packet, found)
                _try_halves(firewall, service, packet, found)
        for address, interface, network in lans(facts, service):
            out = Packet(_first(network), address, interface, device)
            back = Packet(address, _first(network), device, interface) if service.reply == DIRECTOR else out
            _try_forwarding(firewall, back, out, found)
            if service.reply != DIRECTOR:
                _try_halves(firewall, service, out, found)


def _try_halves(firewall: Firewall, service: Service, first: Packet, found: dict[str, Finding]) -> None:
    """Check whether packets pass that follow the *first* of a client.

    Servers answer past this host, so connection tracking regards the second packet of each TCP connection as invalid.
    """
    if "firewall_invalid" in found or "tcp" not in service.protocols:
        return
    later = replace(first, state=INVALID)
    for hook in ("prerouting", "forward"):
        decision = firewall.decides(later, hook, Verdict.DROP)
        if decision is None or firewall.decides(first, hook, Verdict.DROP) is not None:
            continue
        found["firewall_invalid"] = Finding(
            "firewall_invalid",
            f"the firewall of this host drops invalid packets ({_place(decision)}), and so all packets of clients of "
            f"services.{service.name} after a server has answered them, which this host does not see",
            f"run {_allow_halves(decision, later)}",
        )
        return


def _allow_halves(decision: Decision, packet: Packet) -> str:
    """Return the command that lets packets of clients to a service pass, whatever their state in connection
    tracking.
    """
    table, address = decision.table, packet.destination
    assert address is not None
    if table.program == "nft":
        family = "ip" if address.version == 4 else "ip6"
        return (
            f"`nft insert rule {table.family} {table.name} {decision.base} {family} daddr {address} accept`, "
            "or change the program that makes these rules"
        )
    return f"`{table.program} -t {table.name} -I {decision.base} -d {address} -j ACCEPT`"


def _try_serving(facts: Facts, firewall: Firewall, found: dict[str, Finding]) -> None:
    """Check whether packets of a director reach a server that is this host."""
    services = facts.node.table.services.values()
    device, held = facts.device.name, {each.ip for each in facts.plan.held}
    clients = _behind_peers(facts, {address.version for each in services for address in each.addresses})
    for service in services:
        for entry in service.entries_at(facts.node.own.name):
            for address in service.addresses:
                client = clients.get(address.version)
                if address not in held or entry.address is not None or client is None:
                    continue
                port = entry.port or (service.ports[0][0] if service.ports else 0)
                packet = Packet(client, address, device, None, service.protocols[0], port)
                decision = firewall.decides(packet, "input", Verdict.DROP)
                if decision is not None:
                    found[f"firewall_service {service.name}"] = Finding(
                        "firewall_service",
                        f"the firewall of this host drops packets from {device} for {service.protocols[0]} port "
                        f"{port} of {address}, so clients of services.{service.name} are not answered "
                        f"({_place(decision)})",
                        f"run `{_allow_port(decision, port, service.protocols[0])}`",
                    )


def _try_port(facts: Facts, firewall: Firewall, found: dict[str, Finding]) -> None:
    """Check whether peers' handshakes get in, if the peers file says that others call this node.

    The same applies to unencrypted packets, with ports or without.
    """
    is_called = facts.node.own.endpoint is not None
    if facts.node.is_bare:  # its own endpoint is not known, and peers without an endpoint call it
        is_called = any(each.endpoint is None for each in facts.node.tunnels.values())
    callers = list(_callers(facts)) if is_called else []
    ports = [("udp", port) for port in sorted({each.port for each in facts.udp})]
    for protocol, port in (*ports, *((each, 0) for each in _portless(facts))):
        named = PROTOCOLS.get(str(protocol), str(protocol))
        packets = {name: Packet(at, None, device, None, named, port) for name, at, device in callers}
        first = next(iter(packets.values()), None)
        redirected = firewall.redirects(first) if first is not None and port else None
        if first is not None and redirected is not None:
            found[f"port_redirected {port}"] = _describe_redirected(first, redirected, _another_port(facts))
        drops = {name: _first_drop(firewall, packet, INBOUND) for name, packet in packets.items()}
        dropped = {name: decision for name, decision in drops.items() if decision is not None}
        anybody = [replace(each, source=ANYBODY[each.version]) for each in packets.values()]
        is_general = len(dropped) == len(drops) and all(
            _first_drop(firewall, each, INBOUND) for each in anybody
        )
        for name, decision in dropped.items():
            peer = None if is_general else name
            found.setdefault(
                f"firewall_port {protocol} {port} {peer}", _describe_port(packets[name], decision, peer)
            )


def _callers(facts: Facts) -> Iterator[tuple[str, IPAddress, str]]:
    """Yield peers that may call this node, each with an address and the interface by which its packets come."""
    for name, sockaddr in heapq.nsmallest(ENDPOINTS, facts.endpoints):
        address = ip_address(sockaddr[0].partition("%")[0])
        way = facts.routes.match(address, facts.plan.fwmark)
        with contextlib.suppress(OSError):  # gone meanwhile
            if way is not None:
                yield name, address, socket.if_indextoname(way.index)


def _another_port(facts: Facts) -> str:
    if facts.node.is_bare:  # it has no peers file
        return f"choose another with `wg set {facts.device.name} listen-port PORT`"
    return "write another port under [network]"


def _describe_redirected(packet: Packet, decision: Decision, another: str) -> Finding:
    return Finding(
        "port_redirected",
        f"the firewall of this host redirects packets from {packet.enters} for UDP port {packet.port} to another host "
        f"or program ({_place(decision)}), so peers cannot connect to it",
        "see which program made the rule, such as Docker for a container that publishes that port, and give it another "
        f"port, or {another}",
    )


def _describe_port(packet: Packet, decision: Decision, peer: str | None) -> Finding:
    """Return the finding on a port, or an IP protocol, at which packets of *peer*, None for all, do not get in."""
    port, protocol = packet.port, str(packet.protocol)
    protocol = next((number for number, name in PROTOCOLS.items() if name == protocol), protocol)
    what, follows = f"UDP port {port}", "peers cannot connect to it"
    if not port:
        what, follows = f"IP protocol {protocol}", "unencrypted packets from peers do not arrive"
    whose, remedy = packet.enters, ""
    if peer is not None:
        whose, follows = f"{peer} at {packet.source}", "they do not arrive"
        remedy = "see what made that rule, such as a program that bans addresses, or "
    allow = _allow_port(decision, port) if port else _allow_protocol(decision, int(protocol))
    return Finding(
        "firewall_port",
        f"the firewall of this host drops packets from {whose} for {what}, so {follows} ({_place(decision)})",
        f"{remedy}run `{allow}`",
        peer,
    )


def _try_output(facts: Facts, firewall: Firewall, found: dict[str, Finding]) -> None:
    """Check whether this host lets out what it sends to its peers."""
    portless = [str(each) for each in _portless(facts)]
    for name, sockaddr in heapq.nsmallest(ENDPOINTS, facts.endpoints):
        address, port = ip_address(sockaddr[0].partition("%")[0]), sockaddr[1]
        index = facts.routes.route_index(address, facts.plan.fwmark)
        if index is None or index == facts.device.index or "firewall_output" in found:
            continue
        try:
            device = socket.if_indextoname(index)
        except OSError:  # gone meanwhile
            continue
        for protocol in ("udp",) if port else portless:
            packet = Packet(None, address, None, device, PROTOCOLS.get(protocol, protocol), port)
            decision = _first_drop(firewall, packet, OUTBOUND)
            if decision is None:
                continue
            what = f"UDP port {port}" if port else f"IP protocol {protocol}"
            allow = _allow_port(decision, port) if port else _allow_protocol(decision, protocol)
            found["firewall_output"] = Finding(
                "firewall_output",
                f"the firewall of this host drops packets that it sends to {name} at {address}, {what} "
                f"({_place(decision)})",
                f"run `{allow}`",
                name,
            )
            break


def _first_drop(firewall: Firewall, packet: Packet, hooks: tuple[str, ...]) -> Decision | None:
    """Return what drops *packet* for certain at the first of *hooks* where something does."""
    decisions = (firewall.decides(packet, hook, Verdict.DROP) for hook in hooks)
    return next((each for each in decisions if each is not None), None)


def _portless(facts: Facts) -> list[int]:
    """Return the IP protocols of the tunnels that do not use UDP."""
    encapsulations = [each for each in facts.node.encapsulations if not each.has_ports]
    return sorted({protocol for each in encapsulations for protocol in each.protocols.values()})


def _allow_protocol(decision: Decision, protocol: object) -> str:
    table = decision.table
    if table.program == "nft":
        return f"nft insert rule {table.family} {table.name} {decision.base} meta l4proto {protocol} accept"
    return f"{_iptables(table)} -I {decision.base} -p {protocol} -j ACCEPT"


def _allow_port(decision: Decision, port: int, protocol: str = "udp") -> str:
    table = decision.table
    if table.program == "nft":
        return f"nft insert rule {table.family} {table.name} {decision.base} {protocol} dport {port} accept"
    if any(name.startswith("ufw-") for name in table.chains):
        return f"ufw allow {port}/{protocol}"
    return f"{_iptables(table)} -I {decision.base} -p {protocol} --dport {port} -j ACCEPT"


def _iptables(table: Table) -> str:
    """Return the command that changes *table* of iptables."""
    return table.program if table.name == "filter" else f"{table.program} -t {table.name}"
