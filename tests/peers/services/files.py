"""Peers files with services, for tests."""

from __future__ import annotations

from pathlib import Path

from peers.toml import parse
from tests.peers.examples import key_text

PATH = Path("/etc/overlay/peers.toml")
PEERS = ("lb1", "lb2", "web1", "web2", "web3", "static")
PLAIN = '[peers.plain]\naddress = "10.244.0.50"\nendpoint = "198.51.100.50"\nencapsulation = "ipip"\n'
HEAD = '[network]\nprefix = "10.244.0.0/16"\n' + "".join(
    f'[peers.{name}]\npublic_key = "{key_text(name)}"\naddress = "10.244.0.{number}"\n'
    f'endpoint = "198.51.100.{number}"\nsubnets = "10.244.{number}.0/24"\n'
    for number, name in enumerate(PEERS, 1)
)
FIRST_LINE = HEAD.count("\n") + 1


def read(*lines: str):
    """Return the table of the peers above and *lines*."""
    return parse(HEAD + "\n".join(lines), PATH)


def web(*lines: str) -> str:
    """Return the section of a service, with *lines*, which may leave out the address."""
    first = [] if any(line.startswith("address") for line in lines) else ['address = "192.0.2.100"']
    return "\n".join(["[services.web]", *first, *lines, ""])
