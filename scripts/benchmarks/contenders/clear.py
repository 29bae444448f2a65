"""Agents without encryption, with each unencrypted encapsulation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scripts.benchmarks.contenders.contender import Contender
from scripts.benchmarks.contenders.wireguard import launch_ours, wait_for_ours

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Pair, Underlay

ENCAPSULATIONS = ("udp", "ipip", "gre", "vxlan")
PEERS_TOML = """
[network]
prefix = "10.244.0.0/16"
encapsulation = "{encapsulation}"

[peers.a]
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24"]

[peers.b]
endpoint = "192.0.2.2"
subnets = ["10.244.2.0/24"]
"""


def contenders() -> list[Contender]:
    """Return all of them."""
    compiled = [Contender(f"ours by {each}", partial(start, each)) for each in ENCAPSULATIONS]
    return compiled + [
        Contender(f"ours interpreted by {each}", partial(start, each, is_compiled=False))
        for each in ENCAPSULATIONS
    ]


def start(encapsulation: str, pair: Pair, folder: Path, _: Underlay, *, is_compiled: bool = True) -> None:
    """Start both ends, which are identified by their endpoints."""
    peers = folder / "peers.toml"
    peers.write_text(PEERS_TOML.format(encapsulation=encapsulation))
    for node in pair.nodes:
        launch_ours(node, peers, folder / f"{node.number}.key", is_compiled=is_compiled)
    for node in pair.nodes:
        wait_for_ours(node, folder / f"{node.number}.key")
