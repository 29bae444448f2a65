"""Contenders that speak WireGuard: the overlay and wireguard-go, alone and with each other."""

from __future__ import annotations

import base64
import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Literal

from scripts.benchmarks.contenders.contender import OVERHEAD, Contender, Program, lead, write_secret
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.benchmarks.nodes import Node, Pair, Underlay

Kind = Literal["ours", "interpreted", "wireguard-go"]

PEERS_TOML = """
[network]
prefix = "10.244.0.0/16"
bulk = {bulk}

[peers.a]
public_key = "{a}"
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24", "10.244.3.0/24"]

[peers.b]
public_key = "{b}"
endpoint = "192.0.2.2"
subnets = ["10.244.2.0/24", "10.244.4.0/24"]
"""
ONE_MORE_PEER = """
[peers.more{number}]
public_key = "{key}"
endpoint = "198.51.100.1:{port}"
subnets = ["{subnet}"]
"""
ONE_MORE_PEER_OF_WG = """
[Peer]
PublicKey = {key}
Endpoint = 198.51.100.1:{port}
AllowedIPs = {subnet}
"""
FIRST_PORT = 10_000
MORE_PEERS_LIMIT = 10_000
"""As many subnets of four addresses as fit between 10.244.16.0 and the end of the overlay, rounded down."""


def contenders(wireguard_go: str) -> list[Contender]:
    """Return all of them; *wireguard_go* is the program."""
    program = Program(wireguard_go, "wireguard-go")
    return [
        Contender("ours", partial(start, "ours", "ours", True), None, True, True),
        Contender("ours with 2 lanes", partial(start, "ours", "ours", True, lanes=2), None, True, True),
        Contender("ours without bulk", partial(start, "ours", "ours", False), None, True, True),
        Contender("ours interpreted", partial(start, "interpreted", "interpreted", True), None, True, True),
        Contender(
            "ours interpreted without bulk",
            partial(start, "interpreted", "interpreted", False),
            None,
            True,
            True,
        ),
        Contender("ours to wireguard-go", partial(start, "ours", "wireguard-go", True), program, True),
        Contender("wireguard-go to ours", partial(start, "wireguard-go", "ours", True), program, True),
        Contender("wireguard-go", partial(start, "wireguard-go", "wireguard-go", True), program, True),
    ]


def start(
    first: Kind, second: Kind, bulk: bool, pair: Pair, folder: Path, underlay: Underlay, *, lanes: int = 1
) -> None:
    """Start both ends, each of its kind."""
    text = PEERS_TOML.format(a=pair.a.public_key, b=pair.b.public_key, bulk=str(bulk).lower())
    more = "".join(ONE_MORE_PEER.format(**peer) for peer in more_peers(pair.more_peers))
    (folder / "peers.toml").write_text(text + more)
    waiting = []
    for node, other, kind in ((pair.a, pair.b, first), (pair.b, pair.a, second)):
        key = folder / f"{node.number}.key"
        if kind != "wireguard-go":
            launch_ours(node, folder / "peers.toml", key, is_compiled=kind == "ours", lanes=lanes)
            waiting.append((node, key))
        else:
            start_wireguard_go(node, other, key, underlay, pair.more_peers)
    for node, key in waiting:
        wait_for_ours(node, key)


def start_ours(node: Node, peers: Path, key: Path) -> None:
    """Start an agent, and wait until it is ready."""
    launch_ours(node, peers, key)
    wait_for_ours(node, key)


def launch_ours(node: Node, peers: Path, key: Path, *, is_compiled: bool = True, lanes: int = 1) -> None:
    """Start an agent with that number of lanes, with or without the compiled packet path."""
    write_secret(key, node.private_key + "\n")
    path = () if is_compiled else ("env", "OVERLAY_NATIVE=0")
    several = ("--lanes", str(lanes)) if lanes > 1 else ()
    python: tuple[str | Path, ...] = (sys.executable,)
    if node.checkout is not None:
        python = ("env", "-C", node.checkout, node.checkout / ".venv" / "bin" / "python")
    command = (*path, *python, "-m", "overlay", "up", "--peers", peers, "--key", key, *several)
    node.start(*command, log=key.with_suffix(".log"))


def wait_for_ours(node: Node, key: Path) -> None:
    """Wait until the agent with that *key* is ready."""
    log = key.with_suffix(".log")
    wait_until(lambda: " ready " in log.read_text(), 60, f"the agent of {node.host.name} is ready")


def start_wireguard_go(node: Node, other: Node, key: Path, underlay: Underlay, more: int = 0) -> None:
    """Start wireguard-go with *other* as its peer, and *more* further peers."""
    write_secret(key, node.private_key + "\n")
    # Its sockets are in the same folder for all namespaces.
    interface = f"{node.host.full_name[-13:]}w".replace("-", "")
    node.start(underlay.wireguard_go, "-f", interface)
    show = ("wg", "show", interface)
    wait_until(lambda: node.host.completed(*show).returncode == 0, 10, "wireguard-go answers")
    node.host.run(
        *("wg", "set", interface, "private-key", key, "listen-port", "51820"),
        *("peer", other.public_key, "endpoint", f"{other.underlay_address}:51820"),
        *("allowed-ips", other.subnet),
    )
    if more:
        text = "".join(ONE_MORE_PEER_OF_WG.format(**peer) for peer in more_peers(more))
        key.with_suffix(".conf").write_text(text)
        node.host.run("wg", "addconf", interface, key.with_suffix(".conf"))
    lead(node, interface, underlay.mtu - OVERHEAD)


def more_peers(count: int) -> Iterator[dict[str, str]]:
    """Yield peers that are in the table but never heard from, the same ones each time."""
    source = random.Random(0)
    for number in range(count):
        first = (16 << 8) + number * 4
        yield {
            "number": str(number),
            "key": base64.b64encode(source.randbytes(32)).decode(),
            "port": str(FIRST_PORT + number),
            "subnet": f"10.244.{first >> 8}.{first & 0xFF}/30",
        }
