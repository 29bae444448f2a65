"""Hosts of one overlay on one link, some of them directors and some servers of a virtual service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.contenders.wireguard import launch_ours, wait_for_ours
from scripts.benchmarks.nodes import make_node
from tests.netns.topology import CommandError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.benchmarks.nodes import Node
    from tests.netns.topology import Lab

VIP = "203.0.113.80"
PATIENCE = 30.0

HOST_TOML = """
[peers.{name}]
public_key = "{key}"
endpoint = "{endpoint}"
address = "{address}"
subnets = ["{subnet}"]
"""


class Farm:
    """Hosts by their *names*, each with a container behind it, and next to them a visitor without an agent.

    *services* are sections of the peers file.  All agents are running when this returns.
    """

    def __init__(self, lab: Lab, folder: Path, prefix: str, names: Sequence[str], services: str) -> None:
        self._lab, self.folder = lab, folder / prefix
        self.folder.mkdir()
        self._switch = lab.switch(f"{prefix}-lan")
        self.nodes: dict[str, Node] = {}
        for number, name in enumerate(names, 1):
            node = make_node(lab, f"{prefix}{name}", number)
            node.address = f"10.244.{number}.1"
            self.nodes[name] = node
            lab.plug(self._switch, node.host.end("eth0", f"{node.underlay_address}/24"))
        self.visitor = lab.namespace(f"{prefix}-visitor")
        lab.plug(self._switch, self.visitor.end("eth0", "192.0.2.200/24"))
        peers = self.folder / "peers.toml"
        peers.write_text('[network]\nprefix = "10.244.0.0/16"\n' + "".join(self._sections()) + services)
        for name, node in self.nodes.items():
            launch_ours(node, peers, self._key(name))
        for name, node in self.nodes.items():
            wait_for_ours(node, self._key(name))

    def _sections(self) -> list[str]:
        return [
            HOST_TOML.format(
                name=name,
                key=node.public_key,
                endpoint=node.underlay_address,
                address=node.address,
                subnet=node.subnet,
            )
            for name, node in self.nodes.items()
        ]

    def _key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def lead_visitor(self, director: str, address: str = VIP) -> None:
        """Route the visitor's packets to a virtual address through *director*, as a router would."""
        host = self.nodes[director].host
        self.visitor.run("ip", "route", "replace", address, "via", self.nodes[director].underlay_address)
        host.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.eth0.send_redirects=0")

    def overlay(self, name: str, *words: str) -> str:
        """Return what an `overlay` command prints at a host.  Raises CommandError if it fails."""
        return self.nodes[name].host.python(
            "import sys; from overlay.__main__ import main; sys.argv[0] = 'overlay'; main()", *words
        )

    def servers(self, director: str, service: str) -> Mapping[str, Mapping[str, Any]]:
        """Return what *director* reports about the servers of a service."""
        told = json.loads(self.overlay(director, "services", service, "--json"))
        return {each["name"]: each for each in told["services"][0]["servers"]}

    def wait_states(self, director: str, service: str, **states: str) -> None:
        """Wait until *director* reports each server in the named state."""

        def is_so() -> bool:
            try:
                servers = self.servers(director, service)
            except CommandError:  # the director does not know yet which one is active
                return False
            return all(servers[name]["state"] == state for name, state in states.items())

        wait_until(is_so, PATIENCE, f"{director} sees {states}")
