"""Settings of the host, below /proc/sys/net, that block traffic, or cause more of it than necessary."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Address, IPv4Network, ip_address
from itertools import islice
from typing import TYPE_CHECKING

from overlay.diagnosis.fault import Fault, command
from overlay.diagnosis.finding import Finding
from overlay.diagnosis.services import directed, forwarding_wanted
from overlay.host import sysctl
from overlay.linux import LOOSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.host.plan import IPAddress

# Specification: Documentation/networking/ip-sysctl.rst
ACCEPTS_AS_HOST = 1  # accept_ra: router advertisements are accepted unless the interface forwards
ACCEPTS_ALWAYS = 2  # accept_ra: they are always accepted

# Ours
QUESTIONS = 64  # addresses whose routes are queried; those of one host are alike


def check_settings(facts: Facts) -> Iterator[Finding]:
    """Yield each setting of the host that blocks traffic."""
    for fault in faults(facts):
        yield fault.finding


def faults(facts: Facts) -> Iterator[Fault]:
    """Yield the faults among the settings of the host.

    Forwarding is needed for subnets that are more than this host, and for services that it balances.  For IPv4 each
    interface by which packets come has a setting of its own, which a change of the host's overwrites.  When IPv6
    forwarding is switched on, the kernel drops the default routes that it learned from router advertisements and
    ignores further ones, unless accept_ra is 2: so that must be set first.  A strict reverse path check drops a packet
    whose source is routed to another interface than the one it came from:

    - on a tun that was prepared (one of ours is loose), a source that is not routed into it: from a peer's `sources`
      outside the prefixes routed to peers, or in a subnet for which another route is preferred;
    - on an interface that leads to an endpoint, that endpoint's datagrams if packets to it without our mark would go
      elsewhere: into the tun, by policy routes.  A peer without a known endpoint may call by any interface to which
      packets with our mark go.

    A hub, through which peers reach each other, and a director receive packets by the tun that leave by it again.  The
    kernel then sends ICMP redirects that tell the senders to reach each other directly, which they cannot.
    """
    read = facts.read
    behind = {prefix.version for prefix in facts.node.own.subnets if prefix.num_addresses > 1}
    needed = {
        name: f"this host does not forward IPv{version}, so its subnets cannot be reached"
        for version, name in sysctl.FORWARDING.items()
        if version in behind
    }
    for name, problem in {**forwarding_wanted(facts), **needed}.items():
        if read(name) == 0:
            version = 6 if name == sysctl.FORWARDING[6] else 4
            remedy = "run "
            before = tuple((each, ACCEPTS_ALWAYS) for each in _heeding(read)) if version == 6 else ()
            if before:
                remedy += (
                    f"`sysctl -w net.ipv6.conf.IF.accept_ra={ACCEPTS_ALWAYS}` for each interface IF whose routes "
                    "come from router advertisements (they would be lost), then "
                )
            yield Fault(name, 1, Finding("forwarding", problem, remedy + command(name, 1)), before)
    for name, problem in _not_forwarding(facts) if 4 in behind and read(sysctl.FORWARDING[4]) else ():
        yield Fault(name, 1, Finding("forwarding", problem, f"run {command(name, 1)}"))
    for interface, what in _strict(facts):
        name = sysctl.filter_switch(interface)
        problem, remedy = (
            f"strict rp_filter on {interface} drops {what}",
            f"run {command(name, LOOSE)}",
        )
        yield Fault(name, LOOSE, Finding("rp_filter", problem, remedy))

    if _is_hub(facts) or _is_director(facts):
        to = "peers whose packets to each other it forwards"
        if not _is_hub(facts):
            to = "clients behind peers whose packets to services it balances"
        switches = [sysctl.redirect_switch(each) for each in ("all", facts.device.name)]
        for name in (each for each in switches if read(each)):
            problem = f"this host sends ICMP redirects to {to}"
            yield Fault(name, 0, Finding("redirects", problem, f"run {command(name, 0)}"))


def _not_forwarding(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the setting of each interface whose IPv4 packets are not forwarded between subnets and peers, with what
    follows.
    """
    if facts.node.is_tap or not facts.is_set_up:
        return
    subnets = [
        each for each in facts.node.own.subnets if isinstance(each, IPv4Network) and each.num_addresses > 1
    ]
    found = {facts.device.name: "so peers do not reach its subnets"}
    for link in facts.routes.links():
        network = link.network
        inside = [each for each in subnets if isinstance(network, IPv4Network) and network.subnet_of(each)]
        if inside:
            with contextlib.suppress(OSError):  # gone meanwhile
                found[socket.if_indextoname(link.index)] = f"so {inside[0]} does not reach peers"
    for interface, consequence in found.items():
        name = f"ipv4/conf/{interface}/forwarding"
        if facts.read(name) == 0:
            yield name, f"this host does not forward IPv4 packets that come in by {interface}, {consequence}"


def _is_hub(facts: Facts) -> bool:
    """Return whether another peer has a part of a network behind this node, so that others send packets for it here."""
    node = facts.node
    if node.is_tap or len(node.others) < 2:
        return False
    prefixes = (each for peer in node.others for each in peer.subnets if each.version == 4)
    return any(
        owner == node.own.name
        for prefix in islice(prefixes, QUESTIONS)
        for _, owner in node.table.owners.covering(prefix)
    )


def _is_director(facts: Facts) -> bool:
    """Return whether others send this node packets for a service, which leave the tun and enter it again."""
    return bool(facts.node.others) and any(
        service.directors is not None and any(address.version == 4 for address in service.addresses)
        for service in directed(facts)
    )


def _strict(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield each interface whose reverse path check drops something, and what that is."""
    device = facts.device
    if device.is_persistent and sysctl.is_strict(device.name, facts.read):
        stray = _first_stray(facts)
        if stray is not None:
            yield device.name, f"packets of peers from {stray}, which is routed elsewhere"
    for interface in sorted(_one_way_interfaces(facts)):
        if sysctl.is_strict(interface, facts.read):
            yield interface, "packets of peers that bypass the policy routes"


def _first_stray(facts: Facts) -> IPv4Network | None:
    """Return a prefix from which peers send into the tun, but to which packets go elsewhere."""
    node, plan = facts.node, facts.plan
    subnets = (each for peer in node.others for each in peer.subnets if isinstance(each, IPv4Network))
    for subnet in islice(subnets, QUESTIONS):
        if facts.routes.route_index(first_host(subnet)) not in {facts.device.index, None}:
            return subnet
    led = [prefix for prefix in (*plan.routes, *plan.policy_routes) if isinstance(prefix, IPv4Network)]
    for tunnel in node.tunnels.values():
        if not tunnel.encapsulation.is_encrypted:
            for prefix in tunnel.peer.sources:
                if isinstance(prefix, IPv4Network) and not any(map(prefix.subnet_of, led)):
                    return prefix
    return None


def _one_way_interfaces(facts: Facts) -> set[str]:
    """Return the interfaces that lead to endpoints with our mark, but not without it."""
    plan = facts.plan
    if not plan.fwmark:
        return set()
    addresses: set[IPAddress] = {
        ip_address(sockaddr[0]) for _, sockaddr in islice(facts.endpoints, QUESTIONS) if len(sockaddr) == 2
    }
    if len({name for name, _ in facts.endpoints}) < len(facts.node.others):  # some are not known
        addresses |= {first_host(prefix) for prefix in plan.policy_routes if isinstance(prefix, IPv4Network)}
    found = set()
    for address in addresses:
        marked = facts.routes.route_index(address, plan.fwmark)
        if marked is not None and marked != facts.routes.route_index(address):
            with contextlib.suppress(OSError):  # gone meanwhile
                found.add(socket.if_indextoname(marked))
    return found


def first_host(prefix: IPv4Network) -> IPv4Address:
    """Return an address of the prefix whose route to look up: 0.0.0.0 is not routed like the rest of 0.0.0.0/0."""
    return prefix.network_address + (prefix.num_addresses > 1)


def _heeding(read: Callable[[str], int | None]) -> list[str]:
    """Return the setting accept_ra of each interface that accepts router advertisements until it forwards."""
    return [
        f"ipv6/conf/{interface}/accept_ra"
        for interface in sysctl.interfaces(6)
        if read(f"ipv6/conf/{interface}/accept_ra") == ACCEPTS_AS_HOST
        and read(f"ipv6/conf/{interface}/forwarding") == 0
    ]
