"""Problems that keep clients from services that this host balances or serves."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from overlay.diagnosis.finding import Finding
from overlay.host import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.diagnosis.facts import Facts
    from overlay.host.plan import IPAddress, IPNetwork
    from peers.service import Service


def check_services(facts: Facts) -> Iterator[Finding]:
    """Yield a finding for each virtual address that the plan routes into the tun but that is an address of this host.

    Its packets then stay here, where nothing may listen.
    """
    for service in facts.node.table.services.values():
        for address in service.addresses:
            route = facts.routes.match(address) if _leads_into_tun(facts, address) else None
            if route is None or not route.is_local or route.index == facts.device.index:
                continue
            try:
                interface = socket.if_indextoname(route.index)
            except OSError:  # gone meanwhile
                continue
            yield Finding(
                "service_address",
                f"{address} of services.{service.name} is an address of this host, on {interface}, so its packets stay "
                "here and are not balanced",
                f"run `ip address delete {address} dev {interface}`, with the prefix length that `ip address` shows",
            )


def _leads_into_tun(facts: Facts, address: IPAddress) -> bool:
    return all(each.ip != address for each in facts.plan.held)


def forwarding_wanted(facts: Facts) -> dict[str, str]:
    """Return the settings that the kernel needs to forward clients' packets into the tun, each with the consequence.

    For IPv4 the incoming interface decides: that of the LAN of a virtual address, and the tun, for which the agent sets
    it.  For IPv6 the whole host forwards, or nothing does; packets from hosts of the overlay need it, too.
    """
    wanted: dict[str, str] = {}
    for service in directed(facts):
        for address, interface, _ in lans(facts, service):
            if address.version == 4:
                wanted.setdefault(
                    f"ipv4/conf/{interface}/forwarding",
                    f"this host does not forward packets from {interface}, so clients there cannot use "
                    f"{address} of services.{service.name}",
                )
        for address in service.addresses:
            if address.version == 6 and service.directors is not None:
                wanted.setdefault(
                    sysctl.FORWARDING[6],
                    f"this host does not forward IPv6, so clients cannot use {address} of services.{service.name} "
                    "through it",
                )
    return wanted


def directed(facts: Facts) -> Iterator[Service]:
    """Yield the services that this host balances."""
    if facts.node.is_tap:
        return
    for service in facts.node.table.services.values():
        if service.is_directed_by(facts.node.own.name):
            yield service


def lans(facts: Facts, service: Service) -> Iterator[tuple[IPAddress, str, IPNetwork]]:
    """Yield the addresses of *service* that are on a link of this host, with the interface and the network."""
    for link in facts.routes.links():
        for address in service.addresses:
            if address.version == link.network.version and link.network.prefixlen and address in link.network:
                try:
                    yield address, socket.if_indextoname(link.index), link.network
                except OSError:  # gone meanwhile
                    continue
