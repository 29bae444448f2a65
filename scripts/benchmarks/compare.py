"""Every contender, two of ours and others, in interleaved rounds: throughput, round trips, processor time, memory."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.console import fail, program_version, say
from scripts.benchmarks.lab import CONTENDERS, Pair, Underlay, set_up
from scripts.benchmarks.measures import cpu_seconds, memory_mb, ping, tcp
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

REFERENCE = "wireguard-go"


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    check(arguments)
    underlay = Underlay(arguments.mtu, not arguments.no_offloads, arguments.loss, arguments.wireguard_go)
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        pairs = []
        for number, name in enumerate(arguments.contenders):
            say(f"setting up {name}")
            pairs.append(set_up(lab, folder, f"c{number}", name, underlay))
        results: dict[str, dict[str, list[float]]] = {pair.name: {} for pair in pairs}
        for pair in pairs:
            ready = [node.ready_after for node in (pair.a, pair.b) if node.ready_after is not None]
            if ready:
                results[pair.name]["ready_s"] = ready
            results[pair.name]["first_ping_ms"] = [ping(pair, arguments.places[-1], 1)[0]]
        for number in range(arguments.rounds):
            for place in arguments.places:
                for pair in pairs:
                    say(f"round {number + 1} of {arguments.rounds}, {place}: {pair.name}")
                    measure(pair, place, arguments.seconds, results[pair.name])
        for pair in pairs:
            results[pair.name]["memory_mb"] = [sum(memory_mb(pid) for pid in pair.a.processes)]
        report(results, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="of each TCP transfer (default 3)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"of: {', '.join(CONTENDERS)}")
    parser.add_argument("--places", default="hosts,containers", help="of: hosts, containers")
    parser.add_argument("--mtu", type=int, default=1500, help="of the underlay (default 1500)")
    parser.add_argument(
        "--loss",
        type=float,
        default=0.0,
        help="percent of the underlay's frames to drop; implies --no-offloads",
    )
    parser.add_argument("--no-offloads", action="store_true", help="datagrams of wire size on the underlay")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--wireguard-go", default="wireguard-go", help="another build of it")


def check(arguments: argparse.Namespace) -> None:
    """Read the lists among the options; SystemExit where one is wrong."""
    arguments.contenders = [name.strip() for name in arguments.contenders.split(",")]
    arguments.places = [name.strip() for name in arguments.places.split(",")]
    for name in arguments.contenders:
        if name not in CONTENDERS:
            fail(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
    for place in arguments.places:
        if place not in {"hosts", "containers"}:
            fail(f"there is no place {place!r}; there are hosts, containers")
    if not 1 <= arguments.rounds <= 100 or not 1 <= arguments.seconds <= 60:
        fail("rounds are 1 to 100, seconds 1 to 60: the whole must end")
    if any("wireguard-go" in name for name in arguments.contenders) and not shutil.which(
        arguments.wireguard_go
    ):
        fail("wireguard-go is not installed: apt-get install wireguard-go, or choose --contenders")


# Measuring


def measure(pair: Pair, place: str, seconds: int, results: dict[str, list[float]]) -> None:
    before = sum(cpu_seconds(pid) for pid in pair.processes)
    rate, volume = tcp(pair, place, seconds)
    used = sum(cpu_seconds(pid) for pid in pair.processes) - before
    results.setdefault(f"{place} tcp_gbit", []).append(rate)
    if pair.processes:
        results.setdefault(f"{place} cpu_s_per_gb", []).append(used / volume)
    times = sorted(ping(pair, place, 200))
    results.setdefault(f"{place} rtt_us", []).append(statistics.median(times) * 1000)
    results.setdefault(f"{place} rtt_p99_us", []).append(times[int(len(times) * 0.99) - 1] * 1000)


# Reporting


def report(results: dict[str, dict[str, list[float]]], arguments: argparse.Namespace) -> None:
    machine = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("overlay", "cryptography", "numpy")},
        "wireguard-go": program_version([arguments.wireguard_go, "--version"]),
        "iperf3": program_version(["iperf3", "--version"]),
        "underlay": f"veth, MTU {arguments.mtu}, "
        f"{'wire-size frames' if arguments.no_offloads or arguments.loss else 'offloads on'}, {arguments.loss} % loss",
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    say()
    for name, value in machine.items():
        say(f"{name}: {value}")
    reference = results.get(REFERENCE, {})
    columns = sorted({column for measured in results.values() for column in measured})
    for column in columns:
        say(f"\n{column}{'':12}median      least       most   x {REFERENCE}")
        base = statistics.median(reference[column]) if reference.get(column) else None
        for name, measured in results.items():
            if column not in measured:
                continue
            values = measured[column]
            median = statistics.median(values)
            ratio = f"{median / base:10.2f}" if base else ""
            say(f"  {name:22} {median:10.3f} {min(values):10.3f} {max(values):10.3f} {ratio}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
