"""Two overlay hosts whose table also contains many other peers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from overlay.crypto.keys import encode_key
from overlay.wire.messages import KEY_SIZE
from scripts.benchmarks.lab import Pair, make_node, start_ours
from scripts.benchmarks.measures import ping
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.netns.topology import Lab

FIRST_SUBNET = int(IPv4Address("10.0.0.0"))
SUBNET_LENGTH = 28  # 524,288 of them fit into the second prefix of the network
PREFIXES = '"10.244.0.0/16", "10.0.0.0/9"'
HOSTS_ALONE = '"10.244.0.0/16"'  # each subnet of the crowd is a route of its own

NETWORK_TOML = """
[network]
prefix = [{prefixes}]
{network}
[peers.a]
public_key = "{a}"
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24"]

[peers.b]
public_key = "{b}"
endpoint = "192.0.2.2"
subnets = ["10.244.2.0/24"]
"""
OTHER_TOML = """
[peers.{name}]
public_key = "{public_key}"
subnets = [{subnets}]
{endpoint}"""


@dataclass(frozen=True)
class Other:
    """A peer that fills the table.  Without an endpoint it is never called."""

    name: str
    public_key: str
    subnets: tuple[str, ...]
    endpoint: str = ""


def others(
    count: int,
    subnets: int,
    public_keys: Sequence[str] = (),
    *,
    generation: int = 0,
    first: int = FIRST_SUBNET,
) -> Iterator[Other]:
    """Yield *count* peers with *subnets* subnets each, and with *public_keys*, or with unused keys.

    Each *generation* has different names, keys and subnets, which begin at *first*.
    """
    size = 2 ** (32 - SUBNET_LENGTH)
    at = first + generation * count * subnets * size
    for number in range(count):
        prefixes = tuple(
            f"{IPv4Address(at + (number * subnets + each) * size)}/{SUBNET_LENGTH}" for each in range(subnets)
        )
        public_key = public_keys[number] if public_keys else encode_key(os.urandom(KEY_SIZE))
        yield Other(f"other{generation}-{number}", public_key, prefixes)


def peers_toml(pair: Pair, crowd: Sequence[Other], network: str = "", prefixes: str = PREFIXES) -> str:
    """Return the peers file of *pair* and *crowd*, with *prefixes* and more lines for its [network]."""
    keys = {"a": pair.a.public_key, "b": pair.b.public_key}
    text = [NETWORK_TOML.format(prefixes=prefixes, network=network, **keys)]
    for other in crowd:
        subnets = ", ".join(f'"{subnet}"' for subnet in other.subnets)
        endpoint = f'endpoint = "{other.endpoint}"\n' if other.endpoint else ""
        text.append(
            OTHER_TOML.format(
                name=other.name, public_key=other.public_key, subnets=subnets, endpoint=endpoint
            )
        )
    return "".join(text)


@dataclass(kw_only=True)
class CrowdedPair(Pair):
    """A pair of overlay hosts, each with its own peers file: one of them reloads it after ``write``."""

    folder: Path
    network: str = ""  # more lines of [network]
    prefixes: str = PREFIXES

    def peers_file(self, letter: str) -> Path:
        """Return the path of that node's peers file."""
        return self.folder / f"{self.a.host.name[:-1]}{letter}.toml"

    def log_of(self, letter: str) -> str:
        """Return the log of that node's agent."""
        return (self.folder / f"{self.a.host.name[:-1]}{letter}.log").read_text()

    def write(self, letter: str, crowd: Sequence[Other]) -> None:
        """Give that node a new peers file in one step."""
        path = self.peers_file(letter)
        new = path.with_suffix(".new")
        new.write_text(peers_toml(self, crowd, self.network, self.prefixes))
        new.replace(path)


def set_up(
    lab: Lab,
    folder: Path,
    prefix: str,
    name: str,
    crowd: Sequence[Other],
    network: str = "",
    prefixes: str = PREFIXES,
) -> CrowdedPair:
    """Return two overlay hosts, with containers, whose tables also contain *crowd*."""
    a, b = (make_node(lab, f"{prefix}{letter}", number) for number, letter in ((1, "a"), (2, "b")))
    lab.veth(a.host.end("eth0", "192.0.2.1/24"), b.host.end("eth0", "192.0.2.2/24"))
    pair = CrowdedPair(name, a, b, folder=folder, network=network, prefixes=prefixes)
    for node, letter in ((a, "a"), (b, "b")):
        pair.write(letter, crowd)
        start_ours(node, pair.peers_file(letter), folder / f"{prefix}{letter}.key")
    wait_until(lambda: ping(pair, "containers", 1)[0] > 0, 20, f"{name} carries a ping")
    return pair
