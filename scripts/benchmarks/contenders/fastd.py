"""fastd with a tun: encrypted with Salsa20/12 and UMAC, its usual choice, and unencrypted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scripts.benchmarks.contenders.contender import (
    INTERFACE,
    OVERHEAD,
    Contender,
    Program,
    lead,
    wait_for_port,
    write_secret,
)

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.nodes import Node, Pair, Underlay

PROGRAM = Program("fastd", "fastd")
PORT = 10_000
CONFIGURATION = """\
log level warn;
mode tun;
interface "{interface}";
mtu {mtu};
method "{method}";
bind {address}:{port};
secret "{secret}";
peer "other" {{
    key "{public_key}";
    {remote}
}}
"""


def contenders() -> list[Contender]:
    """Return both."""
    return [
        Contender("fastd", partial(start, "salsa2012+umac"), PROGRAM),
        Contender("fastd null", partial(start, "null"), PROGRAM),
    ]


def start(method: str, pair: Pair, folder: Path, underlay: Underlay) -> None:
    """Start both ends; the second calls the first: two calls that cross would be repeated only after 20 seconds."""
    secrets = {
        node.number: node.host.run(PROGRAM.command, "--machine-readable", "--generate-key").strip()
        for node in pair.nodes
    }
    public_keys = {node.number: show_key(node, secrets[node.number], folder) for node in pair.nodes}
    mtu = underlay.mtu - OVERHEAD
    for node, other, remote in (
        (pair.a, pair.b, ""),
        (pair.b, pair.a, f"remote {pair.a.underlay_address}:{PORT};"),
    ):
        text = CONFIGURATION.format(
            interface=INTERFACE,
            mtu=mtu,
            method=method,
            port=PORT,
            address=node.underlay_address,
            secret=secrets[node.number],
            public_key=public_keys[other.number],
            remote=remote,
        )
        file = write_secret(folder / f"{node.number}.conf", text)
        node.start(PROGRAM.command, "--config", file, log=folder / f"{node.number}.log")
        lead(node, INTERFACE, mtu)
        wait_for_port(node, PORT, "udp")


def show_key(node: Node, secret: str, folder: Path) -> str:
    """Return the public key of *secret*."""
    file = write_secret(folder / f"{node.number}.secret", f'secret "{secret}";\n')
    return node.host.run(PROGRAM.command, "--machine-readable", "--show-key", "--config", file).strip()
