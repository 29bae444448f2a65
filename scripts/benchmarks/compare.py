"""Compares every contender, two overlay agents and others, in interleaved rounds: throughput, round trips, processor
time, memory.
"""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures, report
from scripts.benchmarks.attached import attach_both
from scripts.benchmarks.console import fail, progress
from scripts.benchmarks.contenders import CONTENDERS, Contender, registry
from scripts.benchmarks.contenders.wireguard import MORE_PEERS_LIMIT
from scripts.benchmarks.lab import Underlay, set_up
from scripts.benchmarks.links import RELAY_RATE
from scripts.benchmarks.measures import cpu_seconds, memory_mb, ping, tcp
from scripts.benchmarks.nodes import ATTACHED, called
from scripts.benchmarks.options import between, several, some_of
from scripts.benchmarks.report import CPU, MEMORY, PING, PING_P99, READY, TCP, Results
from tests.netns.topology import CommandError, Lab

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from scripts.benchmarks.nodes import Pair

PLACES = ("hosts", "containers", ATTACHED)
MTU = (1360, 9000)  # from where a tunnel inside has the 1280 bytes that IPv6 needs
UNDERLAYS = {
    "whole": "super-packets pass the veth whole",
    "segmented": "super-packets are cut by the sender's kernel and joined by the receiver's, as with a physical card",
    "single": "every frame has wire size, and nothing joins them",
}
PINGS = 200
INSTALL = Path(__file__).parents[1] / "install"
INSTALL_TIME, PLOT_TIME = 900.0, 120.0  # seconds at most
# Seconds of a measurement in addition to the transfer, and of a pair until it is up; only for the estimate
BESIDE_TRANSFER, START, START_PER_PEER = 2.2, 1.5, 0.002

Variant = tuple[str, int, Path | None]
"""One side of the comparison: a contender, the number of further peers in its table, and the checkout of its agents."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--rounds", type=between(1, 100), default=5, help="interleaved rounds (default 5)")
    add("--seconds", type=between(1, 60), default=3, help="of each TCP transfer (default 3)")
    names = ", ".join(CONTENDERS)
    add("--contenders", type=some_of(CONTENDERS), help=f"of: {names}; default all that are installed")
    add("--install", action="store_true", help="install the others from Debian")
    add("--wireguard-go", default="wireguard-go", metavar="PATH", help="another build of it")
    add(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="measure each of ours in this other checkout, too, where scripts/install has been run",
    )
    add(
        "--places",
        type=some_of(PLACES),
        default=PLACES[:2],
        help="of: hosts, containers (behind bridges), attached (by CNI; ours alone); default the first two",
    )
    add("--mtu", type=between(*MTU), default=1500, help="of the underlay (default 1500)")
    about = "; ".join(f"{name}: {meaning}" for name, meaning in UNDERLAYS.items())
    add("--underlay", choices=list(UNDERLAYS), help=f"{about} (default whole)")
    add(
        "--loss",
        type=between(0.0, 50.0),
        default=0.0,
        metavar="PERCENT",
        help="of the underlay's frames, each way; implies --underlay single",
    )
    add(
        "--delay",
        type=between(0.0, 500.0),
        default=0.0,
        metavar="MS",
        help=f"added to the round trip by a relay, at {RELAY_RATE / 1e6:.0f} Mbit/s; implies --underlay single",
    )
    add("--streams", type=between(1, 256), default=1, help="TCP streams at once (default 1)")
    add(
        "--congestion",
        metavar="NAME",
        help="congestion control of the streams, such as cubic or bbr (default: this machine's)",
    )
    add("--both-directions", action="store_true", help="as many streams the other way, too; the sum is shown")
    add(
        "--peers",
        type=several(between(0, MORE_PEERS_LIMIT)),
        default=[0],
        metavar="N,...",
        help="further peers in the tables of overlay and of wireguard-go; several numbers are compared",
    )
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")
    add("--plot", type=Path, metavar="FOLDER", help="draw PNG files into it; installs matplotlib into .venv")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    check(arguments)
    chosen = choose(arguments)
    if arguments.plot is not None:
        install("--plot")
    variants = [
        (contender.name, more, checkout)
        for contender in chosen
        for more in (arguments.peers if contender.has_table else [0])
        for checkout in (
            [arguments.before, None] if arguments.before and "ours" in contender.name else [None]
        )
    ]
    announce(variants, arguments)
    results = Results(
        arguments.places,
        describe(arguments),
        {contender.program.command: contender.program.version() for contender in chosen if contender.program},
    )
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        with Lab() as lab:
            measure_all(set_up_all(lab, Path(folder), variants, arguments, results), arguments, results)
        file = arguments.json or Path(folder, "results.json")
        figures.write(file, vars(arguments), results.content())
        report.show(results)
        if arguments.plot is not None:
            plot(file, arguments.plot)
    if results.failures:
        progress(f"scripts/bench: {len(results.failures)} failed: {'; '.join(results.failures)}")
        raise SystemExit(1)


def check(arguments: argparse.Namespace) -> None:
    """Refuse wrong options that argparse accepts, before anything is made; raises SystemExit."""
    changed = arguments.loss or arguments.delay
    if changed and arguments.underlay not in {None, "single"}:
        fail("--loss and --delay need frames of wire size: leave --underlay out, or write --underlay single")
    arguments.underlay = arguments.underlay or ("single" if changed else "whole")
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if arguments.congestion not in {None, *known}:
        fail(
            f"--congestion: this kernel does not have {arguments.congestion!r}; choose one of {', '.join(known)}"
        )
    if arguments.before is not None and not (arguments.before / ".venv" / "bin" / "python").exists():
        fail(f"--before: {arguments.before} has no .venv/bin/python; run scripts/install there")
    if arguments.wireguard_go != "wireguard-go" and shutil.which(arguments.wireguard_go) is None:
        fail(f"--wireguard-go: {arguments.wireguard_go} is not a program; name one")
    if arguments.json is not None and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        fail(f"--json: {arguments.json} cannot be written; name a file in an existing folder")
    if arguments.plot is not None:
        try:
            arguments.plot.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"--plot: the folder {arguments.plot} cannot be made ({error.strerror}); name another")


def describe(arguments: argparse.Namespace) -> str:
    """Return a description of the underlay."""
    text = f"veth, MTU {arguments.mtu}, {UNDERLAYS[arguments.underlay]}, {arguments.loss:g} % loss"
    if arguments.delay:
        text += f", {arguments.delay:g} ms of delay by a relay that carries {RELAY_RATE / 1e6:.0f} Mbit/s"
    if arguments.congestion:
        text += f", TCP {arguments.congestion}"
    return text


def choose(arguments: argparse.Namespace) -> list[Contender]:
    """Return the contenders to compare; install them if requested."""
    known = registry(arguments.wireguard_go)
    wanted = [known[name] for name in arguments.contenders or known]
    absent = {each.program for each in wanted if each.program and not each.program.is_installed()}
    if absent and arguments.install:
        install("--dev", *(f"{program.command}:{program.package}" for program in absent))
    left_out = [each.name for each in wanted if not each.is_installed()]
    if left_out and arguments.contenders:
        fail(f"not installed: {', '.join(left_out)}; add --install, or choose others with --contenders")
    if left_out:
        progress(f"left out because not installed (--install installs them): {', '.join(left_out)}")
    return [each for each in wanted if each.is_installed()]


def install(*arguments: str) -> None:
    """Have scripts/install install what *arguments* name."""
    done = subprocess.run([INSTALL, *arguments], timeout=INSTALL_TIME, check=False)
    if done.returncode != 0:  # the script has printed why
        raise SystemExit(1)


def announce(variants: Sequence[Variant], arguments: argparse.Namespace) -> None:
    """Print about how long it will take."""
    count = arguments.rounds * len(arguments.places) * len(variants)
    seconds = sum(START + START_PER_PEER * more for _, more, _ in variants)
    seconds += count * (arguments.seconds + BESIDE_TRANSFER)
    duration = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
    progress(f"{count} measurements of {len(variants)} contenders: about {duration}")


# Measuring


def set_up_all(
    lab: Lab,
    folder: Path,
    variants: Sequence[Variant],
    arguments: argparse.Namespace,
    results: Results,
) -> list[Pair]:
    """Return the pairs that came up."""
    underlay = Underlay(
        arguments.mtu,
        arguments.underlay != "single",
        arguments.loss,
        arguments.wireguard_go,
        arguments.underlay == "segmented",
        arguments.delay,
    )
    pairs = []
    for number, (name, more, checkout) in enumerate(variants):
        label = called(name, more, is_before=checkout is not None)
        progress(f"setting up {label}")
        with results.failing(f"{label} did not come up"):
            pair = set_up(lab, folder, f"c{number}", name, underlay, more, checkout)
            if ATTACHED in arguments.places and registry()[name].attaches:
                attach_both(lab, pair, folder)
            assert pair.ready_after is not None
            results.note(READY, pair, pair.ready_after)
            pairs.append(pair)
    return pairs


def measure_all(pairs: Sequence[Pair], arguments: argparse.Namespace, results: Results) -> None:
    """Measure the pairs in turns."""
    for number in range(arguments.rounds):
        for place in arguments.places:
            for pair in pairs:
                if place == ATTACHED and pair.attached is None:
                    continue
                step = f"round {number + 1} of {arguments.rounds}, {place}: {pair.label}"
                progress(step)
                with results.failing(step):
                    measure(pair, place, arguments, results)
    for pair in pairs:
        if pair.a.processes:
            results.note(MEMORY, pair, sum(memory_mb(pid) for pid in pair.a.processes))


def measure(pair: Pair, place: str, arguments: argparse.Namespace, results: Results) -> None:
    """Measure one pair at one place, once."""
    before = sum(cpu_seconds(pid) for pid in pair.processes)
    rate, volume = tcp(
        pair, place, arguments.seconds, arguments.streams, arguments.both_directions, arguments.congestion
    )
    used = sum(cpu_seconds(pid) for pid in pair.processes) - before
    results.note(TCP, pair, rate, place)
    if pair.processes and volume:
        results.note(CPU, pair, used / volume, place)
    times = sorted(ping(pair, place, PINGS))
    if times == [0.0]:
        raise CommandError("no ping came back")
    results.note(PING, pair, statistics.median(times), place)
    results.note(PING_P99, pair, times[math.ceil(len(times) * 0.99) - 1], place)
    results.keep_pings(pair, place, times)


def plot(file: Path, folder: Path) -> None:
    """Plot *file* in a separate process, because only this needs matplotlib."""
    command = [sys.executable, "-m", "scripts.benchmarks.plots", str(file), str(folder)]
    subprocess.run(command, timeout=PLOT_TIME, check=True)
