"""Two hosts with a container each, joined by one of the contenders."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts.benchmarks.measures import ping
from tests.netns.topology import Lab, Namespace, wait_until

if TYPE_CHECKING:
    from pathlib import Path

CONTENDERS = (
    "ours",
    "ours without bulk",
    "ours to wireguard-go",
    "wireguard-go to ours",
    "wireguard-go",
    "no tunnel",
)
PEERS_TOML = """
[network]
prefix = "10.244.0.0/16"
bulk = {bulk}

[peers.a]
public_key = "{a}"
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24"]

[peers.b]
public_key = "{b}"
endpoint = "192.0.2.2"
subnets = ["10.244.2.0/24"]
"""


@dataclass(frozen=True)
class Underlay:
    """What joins the two hosts of a pair."""

    mtu: int = 1500
    offloads: bool = True  # super-packets pass the veth whole
    loss: float = 0.0  # percent of the frames
    wireguard_go: str = "wireguard-go"


@dataclass
class Node:
    """One host: its namespace, its container, and the processes that carry its traffic."""

    host: Namespace
    container: Namespace
    number: int
    private_key: str
    public_key: str
    processes: list[int] = field(default_factory=list)
    ready_after: float | None = None  # seconds from start to "ready"

    @property
    def overlay_address(self) -> str:
        return f"10.244.{self.number}.0"


@dataclass
class Pair:
    """Two nodes joined by a contender."""

    name: str
    a: Node
    b: Node

    @property
    def processes(self) -> list[int]:
        return [*self.a.processes, *self.b.processes]

    def ends(self, place: str) -> tuple[Namespace, Namespace, str]:
        """Return who sends, who receives, and the receiver's address."""
        if place == "hosts":
            address = self.b.overlay_address if self.name != "no tunnel" else "192.0.2.2"
            return self.a.host, self.b.host, address
        return self.a.container, self.b.container, "10.244.2.2"


def set_up(lab: Lab, folder: Path, prefix: str, name: str, underlay: Underlay) -> Pair:
    a, b = (make_node(lab, f"{prefix}{letter}", number) for number, letter in ((1, "a"), (2, "b")))
    lab.veth(
        a.host.end("eth0", "192.0.2.1/24"),
        b.host.end("eth0", "192.0.2.2/24"),
        underlay.mtu,
        underlay.offloads and not underlay.loss,
    )
    if underlay.loss:
        for node in (a, b):
            lose(node.host, underlay.loss)
    pair = Pair(name, a, b)
    if name == "no tunnel":
        a.host.run("ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.2")
        b.host.run("ip", "route", "add", "10.244.1.0/24", "via", "192.0.2.1")
        return pair
    peers = folder / f"{prefix}.toml"
    peers.write_text(
        PEERS_TOML.format(
            a=a.public_key, b=b.public_key, bulk="false" if name == "ours without bulk" else "true"
        )
    )
    kinds = dict.fromkeys(("ours", "ours without bulk"), ("ours", "ours"))
    kinds["wireguard-go"] = ("wireguard-go", "wireguard-go")
    for node, other, kind in zip((a, b), (b, a), kinds.get(name, tuple(name.split(" to "))), strict=True):
        if kind == "ours":
            start_ours(node, peers, folder / f"{node.host.name}.key")
        else:
            start_wireguard_go(node, other, folder / f"{node.host.name}.key", underlay)
    wait_until(lambda: ping(pair, "containers", 1)[0] > 0, 20, f"{name} carries a ping")
    return pair


def make_node(lab: Lab, name: str, number: int) -> Node:
    host = lab.namespace(name)
    container = lab.container(host, f"{name}c", f"10.244.{number}.2/24", gateways=(f"10.244.{number}.1",))
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    public = subprocess.run(
        ["wg", "pubkey"], check=True, capture_output=True, text=True, input=private
    ).stdout
    return Node(host, container, number, private.strip(), public.strip())


def lose(host: Namespace, percent: float) -> None:
    """Drop that share of the frames that arrive, each by itself: they have wire size."""
    rule = f"iifname eth0 numgen random mod 100000 < {round(percent * 1000)} drop"
    host.run("nft", "add table ip loss")
    host.run("nft", "add chain ip loss input { type filter hook prerouting priority -300; }")
    host.run("nft", f"add rule ip loss input {rule}")


def start_ours(node: Node, peers: Path, key: Path) -> None:
    key.touch(mode=0o600)
    key.write_text(node.private_key + "\n")
    began = time.monotonic()
    log = key.with_suffix(".log")
    with log.open("w") as out:
        command = (sys.executable, "-m", "overlay", "up", "--peers", peers, "--key", key)
        node.host.popen(*command, stderr=out)
    wait_until(lambda: " ready " in log.read_text(), 20, "the agent is ready")
    node.ready_after = time.monotonic() - began
    status = json.loads(node.host.run(sys.executable, "-m", "overlay", "status", "--json"))
    node.processes = [status["pid"], status["forwarder_pid"]]


def start_wireguard_go(node: Node, other: Node, key: Path, underlay: Underlay) -> None:
    key.touch(mode=0o600)
    key.write_text(node.private_key + "\n")
    interface = f"{node.host.full_name[-13:]}w".replace("-", "")
    process = node.host.popen(
        underlay.wireguard_go, "-f", interface, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    show = ("wg", "show", interface)
    wait_until(lambda: node.host.completed(*show).returncode == 0, 10, "wireguard-go answers")
    node.host.run(
        *("wg", "set", interface, "private-key", key, "listen-port", "51820"),
        *("peer", other.public_key, "endpoint", f"192.0.2.{other.number}:51820"),
        *("allowed-ips", f"10.244.{other.number}.0/24"),
    )
    node.host.run("ip", "address", "add", f"{node.overlay_address}/32", "dev", interface)
    node.host.run("ip", "link", "set", interface, "mtu", str(underlay.mtu - 80), "up")
    node.host.run("ip", "route", "add", "10.244.0.0/16", "dev", interface, "src", node.overlay_address)
    node.processes = [process.pid]
