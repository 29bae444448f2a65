"""Contenders of the kernel itself, unencrypted: its VXLAN, and the underlay without any tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.benchmarks.contenders.contender import INTERFACE, OVERLAY, Contender

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Pair, Underlay

VXLAN_OVERHEAD = 50  # bytes of inner Ethernet, VXLAN, UDP and IPv4


def contenders() -> list[Contender]:
    """Return both."""
    return [Contender("vxlan", start_vxlan), Contender("no tunnel", start_nothing)]


def start_vxlan(pair: Pair, _: Path, underlay: Underlay) -> None:
    """Join the hosts by a VXLAN device each."""
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        node.host.run(
            *("ip", "link", "add", INTERFACE, "type", "vxlan", "id", "1", "dstport", "4789", "dev", "eth0"),
            *("local", node.underlay_address, "remote", other.underlay_address),
        )
        node.host.run("ip", "address", "add", f"{node.overlay_address}/32", "dev", INTERFACE)
        node.host.run("ip", "link", "set", INTERFACE, "mtu", str(underlay.mtu - VXLAN_OVERHEAD), "up")
        node.host.run(
            *("ip", "route", "add", OVERLAY, "via", other.overlay_address, "dev", INTERFACE, "onlink"),
            *("src", node.overlay_address),
        )


def start_nothing(pair: Pair, _: Path, __: Underlay) -> None:
    """Route the containers over the underlay."""
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        node.address = node.underlay_address
        node.host.run("ip", "route", "add", other.subnet, "via", other.underlay_address)
