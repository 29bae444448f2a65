"""A healthy host, in which a test breaks one thing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.diagnosis.facts import Facts
from overlay.host.netlink.fib import Link, RouteMatch
from overlay.host.plan import HostPlan
from overlay.host.tun import Offloads
from tests.peers.examples import peer, table

PRIVATE = PrivateKey(bytes(range(32)))
BEHIND = (Link(ip_network("10.244.1.0/24"), 3, 0),)  # the bridge of the containers


class Interfaces:
    """Interfaces that are up, except for *down*, with all offloads except for those in *off*, by interface."""

    def __init__(self, down=(), **off):
        self.down, self.off, self.programs = down, off, {}

    def is_up(self, name):
        return name not in self.down

    def xdp_programs(self, name):
        return self.programs.get(name, [])

    def offloads(self, name):
        return {each: each not in self.off.get(name, ()) for each in ("gso", "gro", "tso")}


def facts(
    *, offloads=(True, True), udp=(), plan=None, rules=(), links=BEHIND, read=None, network=None, **fields
):
    """Return the facts about paris, where all routes lead into the tun, except as given."""
    paris = peer("paris", "10.244.1.0/24", public_key=PRIVATE.public)
    found = table(paris, peer("tokyo", "10.244.2.0/24"))
    if network is not None:
        found = replace(found, network=replace(found.network, **network))
    node = Node(PRIVATE, found, paris, {})
    device = SimpleNamespace(
        name="overlay0", index=7, offloads=Offloads(tcp=offloads[0], udp=offloads[1]), is_persistent=False
    )
    routes = SimpleNamespace(
        route_index=lambda address, fwmark=None: 7,
        match=lambda address, fwmark=None: RouteMatch(
            ip_network("10.244.0.0/16"), 7, 254, None, is_local=False
        ),
        links=lambda: list(links),
        host_routes=list,
        marked_rules=lambda: list(rules),
    )
    settings = read or {}
    endpoints = fields.pop("endpoints", frozenset())
    fields = {"is_set_up": True} | fields
    return Facts(node, plan or HostPlan(1420), device, udp, endpoints, routes, settings.get, **fields)
