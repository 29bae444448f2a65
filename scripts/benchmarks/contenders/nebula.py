"""Nebula with a certificate authority of its own, AES-256-GCM, and the containers' subnets as routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.benchmarks.contenders.contender import INTERFACE, OVERHEAD, Contender, Program
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Node, Pair, Underlay

PROGRAM = Program("nebula", "nebula", "-version")
# Its hosts need a network separate from the ones that they route.
ADDRESS = "10.245.0.{number}"
# JSON, and so YAML
CONFIGURATION = """\
pki: {{ca: {folder}/ca.crt, cert: {folder}/{number}.crt, key: {folder}/{number}.key}}
static_host_map: {{"{other}": ["{endpoint}:4242"]}}
lighthouse: {{am_lighthouse: false}}
listen: {{host: {listen}, port: 4242}}
tun:
  dev: {device}
  mtu: {mtu}
  unsafe_routes: [{{route: {subnet}, via: {other}, mtu: {mtu}}}]
logging: {{level: warning}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


def contenders() -> list[Contender]:
    """Return it."""
    return [Contender("nebula", start, PROGRAM)]


def start(pair: Pair, folder: Path, underlay: Underlay) -> None:
    """Start both ends, which know each other's address."""
    run = pair.a.host.run
    run("nebula-cert", "ca", "-name", "bench", *outputs(folder, "ca"))
    for node in pair.nodes:
        node.address = ADDRESS.format(number=node.number)
        run(
            *("nebula-cert", "sign", "-ca-crt", folder / "ca.crt", "-ca-key", folder / "ca.key"),
            *("-name", str(node.number), "-ip", f"{node.address}/24", "-subnets", node.subnet),
            *outputs(folder, str(node.number)),
        )
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        file = folder / f"{node.number}.yml"
        file.write_text(
            CONFIGURATION.format(
                folder=folder,
                number=node.number,
                device=INTERFACE,
                mtu=underlay.mtu - OVERHEAD,
                listen=node.underlay_address,
                endpoint=other.underlay_address,
                other=other.address,
                subnet=other.subnet,
            )
        )
        node.start(PROGRAM.command, "-config", file, log=folder / f"{node.number}.log")
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        wait_for_route(node, other.subnet)


def outputs(folder: Path, name: str) -> tuple[str | Path, ...]:
    """Return the options for the output files of nebula-cert."""
    return "-out-crt", folder / f"{name}.crt", "-out-key", folder / f"{name}.key"


def wait_for_route(node: Node, subnet: str) -> None:
    """Wait until nebula has made its route."""
    wait_until(lambda: node.host.run("ip", "route", "show", subnet), 10, f"there is a route to {subnet}")
