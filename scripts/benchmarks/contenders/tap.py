"""Agents with a tap, which carries Ethernet frames: encrypted, and unencrypted in VXLAN."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from overlay.defaults import INTERFACE
from scripts.benchmarks.contenders.contender import Contender
from scripts.benchmarks.contenders.wireguard import launch_ours, wait_for_ours

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Pair, Underlay

# The hosts need a network separate from the ones that they route: a tap has no subnets.
ADDRESS = "10.245.0.{number}"
PEERS_TOML = """
[network]
prefix = "10.245.0.0/16"
device = "tap"
encapsulation = "{encapsulation}"

[peers.a]
public_key = "{a.public_key}"
endpoint = "{a.underlay_address}"
address = "{a.address}"

[peers.b]
public_key = "{b.public_key}"
endpoint = "{b.underlay_address}"
address = "{b.address}"
"""
CARRIED_BY = {"": "wireguard", " in vxlan": "vxlan"}


def contenders() -> list[Contender]:
    """Return all of them."""
    return [
        Contender(f"{who} by tap{suffix}", partial(start, encapsulation, is_compiled=who == "ours"))
        for who in ("ours", "ours interpreted")
        for suffix, encapsulation in CARRIED_BY.items()
    ]


def start(encapsulation: str, pair: Pair, folder: Path, _: Underlay, *, is_compiled: bool) -> None:
    """Start both ends, and route each other's containers over the tap."""
    for node in pair.nodes:
        node.address = ADDRESS.format(number=node.number)
    peers = folder / "peers.toml"
    peers.write_text(PEERS_TOML.format(encapsulation=encapsulation, a=pair.a, b=pair.b))
    for node in pair.nodes:
        launch_ours(node, peers, folder / f"{node.number}.key", is_compiled=is_compiled)
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        wait_for_ours(node, folder / f"{node.number}.key")
        node.host.run("ip", "route", "add", other.subnet, "via", other.address, "dev", INTERFACE)
