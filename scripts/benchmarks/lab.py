"""Two hosts with a container each, joined by one of the contenders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scripts.benchmarks.contenders import CONTENDERS, registry
from scripts.benchmarks.contenders.wireguard import PEERS_TOML, start_ours, start_wireguard_go
from scripts.benchmarks.links import Condition, join
from scripts.benchmarks.measures import wait_for_ping
from scripts.benchmarks.nodes import Node, Pair, Underlay, make_node

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.topology import Lab

__all__ = [
    "CONTENDERS",
    "PEERS_TOML",
    "Node",
    "Pair",
    "Underlay",
    "make_node",
    "set_up",
    "start_ours",
    "start_wireguard_go",
]

# Most like a physical network card: UDP super-packets are cut as they leave and joined as they arrive.
SEGMENTED = ("tx-udp-segmentation", "off", "gro", "on", "rx-udp-gro-forwarding", "on")


def set_up(
    lab: Lab,
    folder: Path,
    prefix: str,
    name: str,
    underlay: Underlay,
    more_peers: int = 0,
    checkout: Path | None = None,
) -> Pair:
    """Return two hosts that contender *name* joins, once a ping has passed between their containers.

    *prefix* distinguishes its namespaces, and its files in *folder*, from those of others; its agents are those of
    *checkout*.
    """
    a, b = (
        make_node(lab, f"{prefix}{letter}", number, underlay.mtu) for number, letter in ((1, "a"), (2, "b"))
    )
    connect(lab, f"{prefix}-link", a, b, underlay)
    a.checkout = b.checkout = checkout
    pair = Pair(name, a, b, more_peers)
    own = folder / prefix
    own.mkdir()
    began = time.monotonic()
    registry(underlay.wireguard_go)[name].start(pair, own, underlay)
    wait_for_ping(pair, "containers", 20)
    pair.ready_after = time.monotonic() - began
    return pair


def connect(lab: Lab, name: str, a: Node, b: Node, underlay: Underlay) -> None:
    """Join the two hosts as *underlay* says; *name* names the namespace between them, if any."""
    if underlay.loss or underlay.delay_ms:
        condition = Condition(
            "relay" if underlay.delay_ms else "direct", underlay.loss, delay_ms=underlay.delay_ms
        )
        join(lab, condition.path, name, a.host, b.host, underlay.mtu).set(condition, seed=0)
        return
    one, other = (node.host.end("eth0", f"{node.underlay_address}/24") for node in (a, b))
    lab.veth(one, other, underlay.mtu, underlay.offloads)
    if underlay.segmented:
        for node in (a, b):
            node.host.run("ethtool", "-K", "eth0", *SEGMENTED)
