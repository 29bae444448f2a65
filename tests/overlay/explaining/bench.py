"""A node whose kernel is a table of routes, for explanations of packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from overlay.config import Node
from overlay.crypto.keys import PrivateKey
from overlay.explaining import explain
from overlay.explaining.choosing import choose
from overlay.explaining.facts import Facts
from overlay.explaining.flow import Flow
from overlay.host.firewall.rules import Firewall
from overlay.host.netlink.route_lookup import RouteOutcome, RouteResult
from overlay.host.plan import HostPlan
from overlay.roster import Roster
from overlay.services.checking import Checking, Result
from overlay.services.health import Health
from peers import toml
from peers.peer import format_public_key
from tests.peers.examples import key_text

PRIVATE = PrivateKey(bytes(range(32)))
PEERS = f"""
[network]
prefix = "10.244.0.0/16"

[peers.paris]
public_key = "{format_public_key(PRIVATE.public)}"
endpoint = "192.0.2.1"
address = "10.244.0.1"
subnets = ["10.244.1.0/24"]

[peers.tokyo]
public_key = "{key_text("tokyo")}"
endpoint = "192.0.2.2"
address = "10.244.0.2"
subnets = ["10.244.2.0/24"]

[peers.rome]
public_key = "{key_text("rome")}"
endpoint = "192.0.2.3"
address = "10.244.0.3"
subnets = ["10.244.3.0/24"]
"""


def out(interface, prefix, source=None, gateway=None, table=254):
    address = None if source is None else ip_address(source)
    via = None if gateway is None else ip_address(gateway)
    return RouteResult(RouteOutcome.OUT, interface, ip_network(prefix), table, None, via, address, 1500)


HERE = RouteResult(RouteOutcome.HERE, "lo")
ROUTES = {
    "10.244.0.1/32": HERE,
    "192.0.2.1/32": HERE,
    "10.244.0.0/16": out("overlay0", "10.244.0.0/16", "10.244.0.1"),
    "10.244.1.0/24": out("br0", "10.244.1.0/24", "10.244.1.1"),
    "192.0.2.0/24": out("eth0", "192.0.2.0/24", "192.0.2.1"),
    "0.0.0.0/0": out("eth0", "0.0.0.0/0", "192.0.2.1", "192.0.2.254"),
}


def refused(found):
    """Return who refuses the packet of an explanation, and the drop reason."""
    return (None, None) if found.refusal is None else (found.refusal.by, found.refusal.reason)


class Bench:
    """The node *own* of a peers file; *routes* are by prefix, and the longest one applies."""

    def __init__(self, text=PEERS, own="paris", routes=ROUTES):
        table = toml.parse(text, Path("peers.toml"))
        self.node = Node(PRIVATE, table, table.peers[own], {})
        self.roster = Roster()
        self.roster.change_to(self.node)
        self.routes = {ip_network(prefix): way for prefix, way in routes.items()}
        self.rows = {}
        self.forwards = True
        self.refused = {}  # outcomes of incoming packets, by source
        self.plan = HostPlan(1420, routes=(ip_network("10.244.0.0/16"),))
        self.firewall = Firewall()
        self.active, self.chosen, self.asked = own, {}, []
        self.station = self.bridge = self.source_station = None

    def way(self, question):
        self.asked.append(question)
        if question.enters is not None and str(question.source) in self.refused:
            return RouteResult(self.refused[str(question.source)])
        held = [each for each in self.routes if question.destination in each]
        if not held:
            return RouteResult(RouteOutcome.NOWHERE)
        way = self.routes[max(held, key=lambda each: each.prefixlen)]
        return replace(way, source=None) if question.enters is not None else way

    def row(self, remote):
        endpoint = None if remote.configured is None else str(remote.configured)
        usual = {"state": "up", "endpoint": endpoint, "path_mtu": None, "kernel_path_mtu": None}
        return usual | self.rows.get(remote.peer.name, {})

    def explain(self, destination, source=None, **fields):
        flow = Flow(ip_address(destination), None if source is None else ip_address(source), **fields)
        return explain(self.facts(), flow)

    def facts(self):
        return Facts(
            self.node,
            self.roster,
            "overlay0",
            self.plan,
            self.way,
            self.row,
            lambda version, interface: self.forwards,
            lambda service: self.active,
            self.chosen,
            self.firewall,
            self.station,
            self.bridge,
            self.source_station,
        )

    def health(self, name):
        """Return the health of a service, all servers of which are up."""
        service = self.node.table.services[name]
        checkings = {
            each.key: [Checking(check, 0.0, 0.0) for check in service.checks_of(each)]
            for each in service.entries
        }
        health = Health(service, checkings, 0.0)
        for found in checkings.values():
            for checking in found:
                checking.finish(Result(True, "ok"), 0.0)
        health.look(0.0)
        return health

    def choose(self, name, destination, source, known=None, **fields):
        flow = Flow(ip_address(destination), ip_address(source), **fields)
        self.chosen[name] = choose(self.health(name), flow, ip_address(source), known)
        return self.chosen[name]


def texts(found):
    """Return the steps as one text."""
    return "\n".join(f"{each.name}: {each.text}" for each in found.steps)
