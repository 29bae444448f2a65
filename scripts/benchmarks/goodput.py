"""Goodput of a TCP stream between containers with bulk units, relative to one without, if datagrams are lost or late.

The bar is a ratio of 0.95 under every condition.  Runs with units and runs without take turns, on two pairs of hosts; a
condition misses the bar if the 90 % interval of the median ratio is below it.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.console import fail, say
from scripts.benchmarks.contenders import registry
from scripts.benchmarks.intervals import median_interval
from scripts.benchmarks.links import BURST, QUEUES, Condition, Link, join
from scripts.benchmarks.measures import tcp, wait_for_ping
from scripts.benchmarks.nodes import Pair, Underlay, make_node
from tests.netns.topology import CommandError, Lab

if TYPE_CHECKING:
    import argparse

BAR = 0.95
MODES = {"plain": "ours without bulk", "units": "ours"}
LOSSES = (0.01, 0.1, 1.0, 3.0)  # percent
WAYS = (("direct", 0.0), ("relay", 0.0), ("relay", 10.0), ("relay", 50.0))  # with ms of round trip
ATTEMPTS = 3  # for a stream whose control connection was lost
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# For the estimate: the seconds of a stream in addition to its duration, and of a start of the four agents
STREAM_OVERHEAD, START = 0.5, 4.0


def conditions() -> list[Condition]:
    """Return every condition for which the bar applies, those of one path together."""
    losses = [(0.0, 1), *itertools.product(LOSSES, (1, BURST))]
    return [
        *(Condition(path, loss, burst, delay_ms) for path, delay_ms in WAYS for loss, burst in losses),
        *(Condition(path) for path in QUEUES),
    ]


@dataclass
class Mode:
    """Two overlay hosts with their own link, with units or without."""

    name: str
    pair: Pair
    link: Link
    folder: Path

    def renew(self, path: str) -> None:
        """Start new agents, which have not seen loss yet, and wait until packets pass."""
        for node in self.pair.nodes:
            node.stop()
        self.link.set(Condition(path), 0)
        registry()[self.pair.name].start(self.pair, self.folder, Underlay(offloads=False))
        wait_for_ping(self.pair, "containers", 20)

    def sent(self) -> tuple[int, int]:
        """Return how many units the sender has sent so far, and how many packets in units or messages."""
        status = json.loads(self.pair.a.host.run(sys.executable, "-m", "overlay", "status", "--json"))
        (peer,) = status["peers"]
        return peer["tx_units"], peer["tx_packets"]


@dataclass
class Stream:
    """One TCP stream, and what happened below it."""

    goodput: float  # bit/s
    datagrams: int
    lost: int
    units: int | None = None
    packets: int | None = None


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    if not 1 <= arguments.pairs <= 100 or not 1 <= arguments.seconds <= 60:
        fail("--pairs must be 1 to 100, and --seconds 1 to 60")
    chosen = [each for each in conditions() if is_chosen(each.name, arguments.cells)]
    if not chosen:
        fail(f"no condition has that name; choose from {', '.join(each.name for each in conditions())}")
    known = CONGESTION.with_name("tcp_available_congestion_control").read_text().split()
    if arguments.congestion not in known:
        fail(
            f"this kernel does not have the congestion control {arguments.congestion!r}; it has {', '.join(known)}"
        )
    if arguments.list:
        say("\n".join(each.name for each in chosen))
        return
    starts = arguments.pairs if arguments.fresh else 1
    seconds = len(chosen) * (arguments.pairs * 2 * (arguments.seconds + STREAM_OVERHEAD) + starts * START)
    progress(
        f"{len(chosen)} conditions, {arguments.pairs} pairs of streams each: about {seconds / 60:.0f} minutes"
    )
    say(
        f"kernel {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"TCP {arguments.congestion}, {arguments.pairs} pairs of {arguments.seconds} s"
    )
    say(
        f"{'condition':26} {'plain':>9} {'units':>9} {'ratio':>6}  {'90 % interval':15} {'lost':>7}  bar {BAR}"
    )
    say(f"{'':26} {'Mbit/s':>9} {'Mbit/s':>9}")
    results: dict[str, dict[str, list[Stream]]] = {}
    for _, cells in itertools.groupby(chosen, key=lambda each: each.path.partition("-")[0]):
        with Lab() as lab, tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
            modes: list[Mode] = []
            for condition in cells:
                modes = modes or [
                    set_up(lab, Path(folder), name, condition.path, arguments.congestion) for name in MODES
                ]
                results[condition.name] = measure(modes, condition, arguments)
                report(condition.name, results[condition.name])
                if arguments.json is not None:
                    write_json(arguments.json, results, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--pairs", type=int, default=15, help="of streams for each condition (default 15)")
    parser.add_argument("--seconds", type=int, default=3, help="of each stream (default 3)")
    parser.add_argument(
        "--cells", default="*", help="parts or patterns of names of conditions: relay-10ms,*3%%-bursts"
    )
    parser.add_argument(
        "--congestion",
        default=CONGESTION.read_text().strip(),
        help="congestion control of the streams, such as cubic or bbr (default: this machine's, %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="only list the conditions")
    parser.add_argument("--fresh", action="store_true", help="new agents for each pair of streams")
    parser.add_argument("--trace", action="store_true", help="show what each stream sent and lost")
    parser.add_argument("--json", type=Path, help="write every stream to this file")


def is_chosen(name: str, patterns: str) -> bool:
    """Return whether one of the comma-separated *patterns* is part of *name* or matches all of it."""
    return any(
        pattern.strip() in name or fnmatch.fnmatchcase(name, pattern.strip())
        for pattern in patterns.split(",")
    )


# Measuring


def set_up(lab: Lab, folder: Path, name: str, path: str, congestion: str) -> Mode:
    """Return two hosts with containers, not yet started."""
    a, b = (make_node(lab, f"{name}-{letter}", number) for number, letter in ((1, "a"), (2, "b")))
    link = join(lab, path, f"{name}-link", a.host, b.host)
    for node in (a, b):
        # The kernel would start a stream with what it had learned about the path under the previous condition.
        node.container.run("sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
        # Set on the route, because the kernel allows only some controls as the default of a namespace.
        route = node.container.run("ip", "route", "show", "default").split()
        node.container.run("ip", "route", "change", *route, "congctl", congestion)
    own = folder / name
    own.mkdir()
    return Mode(name, Pair(MODES[name], a, b), link, own)


def measure(
    modes: list[Mode], condition: Condition, arguments: argparse.Namespace
) -> dict[str, list[Stream]]:
    """Return the streams of each mode under *condition*, which is new to the agents when it begins."""
    streams: dict[str, list[Stream]] = {mode.name: [] for mode in modes}
    for number in range(arguments.pairs):
        if arguments.fresh or not number:
            for mode in modes:
                mode.renew(condition.path)
        for mode in modes if number % 2 else reversed(modes):
            progress(f"{condition.name}: {number + 1} of {arguments.pairs}, {mode.name}", end="")
            stream = measure_stream(mode, condition, number, arguments)
            streams[mode.name].append(stream)
            progress(f": {describe(stream)}")
    return streams


def measure_stream(mode: Mode, condition: Condition, seed: int, arguments: argparse.Namespace) -> Stream:
    """Return one stream, with the same *seed* for both modes; raises CommandError if it fails repeatedly."""
    for attempt in itertools.count(1):
        before = mode.sent() if arguments.trace else (0, 0)
        mode.link.set(condition, seed)
        try:
            gbits, _ = tcp(mode.pair, "containers", arguments.seconds)
        except (CommandError, subprocess.TimeoutExpired) as error:
            if attempt == ATTEMPTS:
                raise
            progress(f": tried again, {str(error).splitlines()[0]}", end="")
            continue
        stream = Stream(gbits * 1e9, *mode.link.counts())
        if arguments.trace:
            units, packets = mode.sent()
            stream.units, stream.packets = units - before[0], packets - before[1]
        return stream
    raise AssertionError


def describe(stream: Stream) -> str:
    """Return a description of *stream* on one line."""
    text = f"{stream.goodput / 1e6:.1f} Mbit/s, {stream.lost} of {stream.datagrams} datagrams lost"
    return text if stream.units is None else f"{text}; sent {stream.packets} packets and {stream.units} units"


# Reporting


def ratios(streams: dict[str, list[Stream]]) -> list[float]:
    """Return the goodput with units over that without, pair by pair."""
    return [
        units.goodput / plain.goodput if plain.goodput else math.inf
        for plain, units in zip(streams["plain"], streams["units"], strict=True)
    ]


def verdict(high: float) -> str:
    """Return whether an interval up to *high* meets the bar; too few pairs give no verdict."""
    return "missed" if high < BAR else "met" if math.isfinite(high) else "unknown"


def report(name: str, streams: dict[str, list[Stream]]) -> None:
    """Print a line of the table."""
    low, median, high = median_interval(ratios(streams))
    plain, units = (statistics.median(stream.goodput for stream in streams[mode]) / 1e6 for mode in MODES)
    both = [*streams["plain"], *streams["units"]]
    lost = sum(stream.lost for stream in both) / max(1, sum(stream.datagrams for stream in both)) * 100
    say(
        f"{name:26} {plain:9.1f} {units:9.1f} {median:6.2f}  {f'{low:.2f} to {high:.2f}':15} {lost:6.3f}%"
        f"  {verdict(high)}"
    )


def write_json(
    path: Path, results: dict[str, dict[str, list[Stream]]], arguments: argparse.Namespace
) -> None:
    """Write every stream so far, and the results of the table."""
    conditions_json = {}
    for name, streams in results.items():
        low, median, high = median_interval(ratios(streams))
        conditions_json[name] = {
            "ratio": median,
            "interval": [bound if math.isfinite(bound) else None for bound in (low, high)],
            "bar": verdict(high),
            **{mode: [asdict(stream) for stream in each] for mode, each in streams.items()},
        }
    whole = {
        "bar": BAR,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "congestion": arguments.congestion,
        "pairs": arguments.pairs,
        "seconds": arguments.seconds,
        "fresh": arguments.fresh,
        "conditions": conditions_json,
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def progress(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
