"""The type of a contender, and functions that all of them need."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scripts.benchmarks.console import program_version
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scripts.benchmarks.nodes import Node, Pair, Underlay

OVERLAY = "10.244.0.0/16"
INTERFACE = "vpn0"
# The MTU for each encrypting contender: WireGuard's rule, room for 40 bytes of IPv6, 8 of UDP and 32 of its own.  Over
# IPv4 the others need at most as much: openvpn 52, fastd 52, nebula 60, tinc 14 + 4 + 16 + 4 + 28.
OVERHEAD = 80


@dataclass(frozen=True)
class Program:
    """A program that a contender runs."""

    command: str
    package: str  # of Debian
    version_option: str = "--version"

    def is_installed(self) -> bool:
        return shutil.which(self.command) is not None

    def version(self) -> str:
        """Return the version as digits and dots."""
        told = program_version([self.command, self.version_option])
        found = re.search(r"\d+(\.\d+)*", told)
        return found[0] if found else told


@dataclass(frozen=True)
class Contender:
    """One way to join two hosts and the containers behind them."""

    name: str
    start: Callable[[Pair, Path, Underlay], None]
    """Starts both ends with their files in the folder; returns when both are running, though perhaps not connected."""

    program: Program | None = None
    has_table: bool = False  # it has a table of peers, which may be long
    attaches: bool = False  # an agent runs at both ends, which attaches containers by CNI

    def is_installed(self) -> bool:
        return self.program is None or self.program.is_installed()


def lead(node: Node, interface: str, mtu: int) -> None:
    """Give *node* its address on the overlay, and route the other hosts' networks into *interface*."""
    wait_until(
        lambda: node.host.completed("ip", "link", "show", interface).returncode == 0,
        10,
        f"{interface} exists",
    )
    node.host.run("ip", "address", "add", f"{node.overlay_address}/32", "dev", interface)
    node.host.run("ip", "link", "set", interface, "mtu", str(mtu), "up")
    node.host.run("ip", "route", "add", OVERLAY, "dev", interface, "src", node.overlay_address)


def wait_for_port(node: Node, port: int, transport: Literal["tcp", "udp"]) -> None:
    """Wait until a program listens."""
    command = ("ss", "-Hln", f"--{transport}")
    wait_until(lambda: f":{port} " in node.host.run(*command), 10, f"a program listens at {transport} {port}")


def write_secret(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
