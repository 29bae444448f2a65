"""What single steps of the packet path cost, outside any network."""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING

from overlay.forwarding.table import Table
from scripts.benchmarks.console import say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take none."""


def run(_: argparse.Namespace) -> None:
    """Print what a look-up costs with few and with many prefixes."""
    for count in (10, 100_000):
        measure_lookup(count)


def measure_lookup(count: int, rounds: int = 100_000) -> None:
    """Print what one look-up of a destination costs with *count* prefixes in the table."""
    table: Table[str] = Table()
    networks = [(10 << 24 | number << 7).to_bytes(4, "big") for number in range(count)]
    table.stage((network, 25, "peer") for network in networks)
    table.commit()
    addresses = [network[:3] + bytes([network[3] | 1]) for network in networks[:10]]
    for address in addresses:
        table.find(address)
    again = timeit.timeit(lambda: [table.remembered[address] for address in addresses], number=rounds // 10)
    first = timeit.timeit(lambda: [table.find(address) for address in addresses], number=rounds // 10)
    say(f"{count:7} prefixes: {again / rounds * 1e9:6.0f} ns for an address seen before, ", end="")
    say(f"{first / rounds * 1e9:6.0f} ns for another")
