"""Web pages between containers: requests per second on kept connections and on new ones, and the cost of each.

A client (wrk, one thread) requests pages of 1 and 8 KiB from a server (nginx, one worker).  Both are in containers
behind the hosts that a contender joins, and share the processors with it.  On **kept** connections 64 requests are in
progress at a time; on **new** ones, each of which carries one request (``Connection: close``), 8 and 64 are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures
from scripts.benchmarks.console import fail, progress, say
from scripts.benchmarks.contenders import CONTENDERS, registry
from scripts.benchmarks.figures import Figures, machine
from scripts.benchmarks.lab import Underlay, set_up
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.options import between, some_of
from scripts.benchmarks.proxies import NGINX, WRK, requests, start_pages
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

    from scripts.benchmarks.nodes import Pair

SIZES = (1024, 8192)  # bytes of a page
KEPT_AT_ONCE, NEW_AT_ONCE = 64, (8, 64)
REFERENCE = "wireguard-go"
COMPARED = ("ours", "ours without bulk", "ours interpreted", REFERENCE, "no tunnel")
CELLS = (
    *((f"{size // 1024} KiB, {KEPT_AT_ONCE} kept", size, KEPT_AT_ONCE, True) for size in SIZES),
    *((f"1 KiB, {count} new", SIZES[0], count, False) for count in NEW_AT_ONCE),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--rounds", type=between(1, 50), default=5, help="interleaved rounds (default 5)")
    add("--seconds", type=between(1, 30), default=2, help="of each load (default 2)")
    add("--contenders", type=some_of(CONTENDERS), default=COMPARED, help=f"default {', '.join(COMPARED)}")
    add("--wireguard-go", default=REFERENCE, metavar="PATH", help="another build of it")
    add("--mtu", type=between(1360, 9000), default=1500, help="of the underlay (default 1500)")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    known = registry(arguments.wireguard_go)
    programs = [each.program for name in arguments.contenders if (each := known[name]).program]
    missing = {program.package for program in (WRK, NGINX, *programs) if not program.is_installed()}
    if missing:
        names = " ".join(sorted(missing))
        fail(f"missing: {names}; install them (apt-get install {names}), or choose other --contenders")
    results = Figures(REFERENCE)
    underlay = Underlay(arguments.mtu, wireguard_go=arguments.wireguard_go)
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        pairs = []
        for number, name in enumerate(arguments.contenders):
            progress(f"setting up {name}")
            pairs.append(set_up(lab, Path(folder), f"c{number}", name, underlay))
            start_pages(pairs[-1].b.container, Path(folder, f"c{number}"), SIZES)
        for number in range(arguments.rounds):
            for cell in CELLS:
                for pair in pairs:
                    progress(f"round {number + 1} of {arguments.rounds}, {cell[0]}: {pair.name}")
                    measure(pair, *cell, arguments.seconds, results)
    say()
    versions = {program.command: program.version() for program in {WRK, NGINX, *programs}}
    for name, value in {**machine(), **versions}.items():
        say(f"{name}: {value}")
    results.show()
    figures.write(arguments.json, vars(arguments), {"versions": versions, "results": results.values})


def measure(
    pair: Pair, name: str, size: int, at_once: int, is_kept: bool, seconds: int, results: Figures
) -> None:
    """Measure one load once."""
    sender, _, address = pair.ends("containers")
    used = sum(map(cpu_seconds, pair.processes))
    rate, count = requests(sender, f"http://{address}/{size}", seconds, at_once, is_kept=is_kept)
    used = sum(map(cpu_seconds, pair.processes)) - used
    results.note(f"{name}: requests/s", pair.name, rate)
    if pair.processes:
        results.note(f"{name}: CPU us each, both ends", pair.name, used / count * 1e6)
