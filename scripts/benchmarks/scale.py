"""Ten thousand peers in the table compared with three: throughput, round trips, memory, and packets during a reload.

Two pairs of overlay hosts with the same traffic, whose tables hold 3 peers and --peers peers with ten subnets each.
Throughput and round trip are measured in turns; each pair of figures, one for each table, measured one after the other,
gives one ratio.  The median of these ratios is printed with its 90 % interval: the size of the table costs something if
the interval lies below 0.95.

The reload is that of the first host with the large table, whose peers file is replaced (and SIGHUP is sent, so that it
is read at once) while containers exchange pings every 2 ms: once with a file in which only the order of the peers
changed, once with one in which every other peer is a new one with new subnets.  A reload ends when the agent says so.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import crowd, figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.intervals import median_interval
from scripts.benchmarks.measures import memory_mb, ping, tcp
from scripts.benchmarks.pings import Pings, during, quantile
from tests.netns.topology import Lab, wait_until

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from scripts.benchmarks.crowd import CrowdedPair, Other

FEW, MANY = "3 peers", "many peers"
PINGS = 200  # for one median
SUBNETS = 10  # of each peer
BAR = 0.95
RELOAD_TIME = 60.0  # seconds at most
IDLE = 2.0  # seconds of pings before a reload and after it
GOAL_MEMORY = {FEW: 90, MANY: 250}  # MB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs of figures (default 15)")
    parser.add_argument("--seconds", type=int, default=2, help="of each TCP transfer (default 2)")
    parser.add_argument("--peers", type=int, default=10_000, help="in the large table (default 10000)")
    parser.add_argument("--reloads", type=int, default=2, help="of each kind (default 2)")
    parser.add_argument("--places", default="containers", help="of: hosts, containers (default containers)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    check(arguments)
    results = Figures(FEW)
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        others = list(crowd.others(arguments.peers - 2, SUBNETS))
        pairs = []
        for prefix, name, members in (("s", FEW, others[:1]), ("l", MANY, others)):
            say(f"setting up two overlay hosts with {len(members) + 2} peers")
            pairs.append(crowd.set_up(lab, folder, prefix, name, members))
        for number in range(arguments.pairs):
            for place in arguments.places:
                say(f"pair {number + 1} of {arguments.pairs}, {place}")
                for pair in pairs if number % 2 else reversed(pairs):
                    measure(pair, place, arguments.seconds, results)
        for pair in pairs:
            results.note(
                "memory of agent and forwarder, MB", pair.name, sum(map(memory_mb, pair.a.processes))
            )
        measure_reloads(pairs[1], others, arguments.reloads, results)
    results.show()
    ratios = {
        column: compared(measured[MANY], measured[FEW], is_rate=column.endswith("Gbit/s"))
        for column, measured in results.values.items()
        if FEW in measured and len(measured[FEW]) == arguments.pairs
    }
    report(results, ratios)
    figures.write(arguments.json, vars(arguments), {"results": results.values, "ratios": ratios})


def check(arguments: argparse.Namespace) -> None:
    """Parse the list among the options; raises SystemExit if something is wrong."""
    arguments.places = [place.strip() for place in arguments.places.split(",")]
    for place in arguments.places:
        if place not in {"hosts", "containers"}:
            fail(f"there is no place {place!r}; choose from hosts, containers")
    if (
        not 1 <= arguments.pairs <= 100
        or not 1 <= arguments.seconds <= 60
        or not 0 <= arguments.reloads <= 20
    ):
        fail("--pairs must be 1 to 100, --seconds 1 to 60, and --reloads at most 20")
    if not 3 <= arguments.peers <= 13_000:
        fail("--peers must be 3 to 13000, whose subnets fit into the network")


# Measuring


def measure(pair: CrowdedPair, place: str, seconds: int, results: Figures) -> None:
    """Record throughput and round trip once."""
    results.note(f"{place}, TCP, Gbit/s", pair.name, tcp(pair, place, seconds)[0])
    times = [milliseconds * 1000 for milliseconds in ping(pair, place, PINGS)]
    results.note(f"{place}, round trip, us", pair.name, statistics.median(times))


def measure_reloads(pair: CrowdedPair, others: Sequence[Other], count: int, results: Figures) -> None:
    """Record how long pings took during reloads of each kind, and the memory in use at the end."""
    for number in range(count):
        say(f"reload {number + 1} of {count}")
        others = others[::-1]
        measure_reload(pair, others, "nothing changed", results)
        others = list(crowd.others(len(others), SUBNETS, generation=number + 1))
        measure_reload(pair, others, "every peer new", results)
    if count:
        used = sum(map(memory_mb, pair.a.processes))
        results.note("memory of agent and forwarder, MB", "many peers, reloaded", used)


def measure_reload(pair: CrowdedPair, others: Sequence[Other], kind: str, results: Figures) -> None:
    """Record how long pings took before a reload with these peers and during it."""
    agent = pair.a.processes[0]
    done = pair.log_of("a").count(" reloaded ")
    sender, _, address = pair.ends("containers")
    pings = Pings(sender, address)
    time.sleep(IDLE)
    pair.write("a", others)
    began = time.time()
    os.kill(agent, signal.SIGHUP)
    wait_until(lambda: pair.log_of("a").count(" reloaded ") > done, RELOAD_TIME, "the reload")
    ended = time.time()
    time.sleep(IDLE)
    answers = pings.stop()
    results.note("reload, seconds", kind, ended - began)
    for title, values in (
        (kind, during(answers, [(began, ended)])),
        ("idle", during(answers, [(began - IDLE, began), (ended + IDLE / 2, ended + IDLE)])),
    ):
        for share in (0.5, 0.99):
            results.note(f"round trip, reload, us, p{share * 100:g}", title, quantile(values, share))
        results.note("round trip, reload, us, most", title, max(values, default=math.inf))


# Reporting


def compared(many: Sequence[float], few: Sequence[float], *, is_rate: bool) -> tuple[float, float, float]:
    """Return the 90 % interval of the ratios of the pairs, greater than 1 if the large table does better."""
    ratios = [one / other if is_rate else other / one for one, other in zip(many, few, strict=True)]
    return median_interval(ratios)


def report(results: Figures, ratios: dict[str, tuple[float, float, float]]) -> None:
    """Print the goals."""
    say()
    for column, (low, median, high) in ratios.items():
        verdict = "missed" if high < BAR else "met" if low >= BAR else "met, as far as can be told"
        say(
            f"{column}, as good as with {FEW}: {median:.3f}, 90 % interval {low:.3f} to {high:.3f} (bar {BAR}: "
            f"{verdict})"
        )
    for name, goal in GOAL_MEMORY.items():
        used = results.median("memory of agent and forwarder, MB", name)
        say(f"memory with {name}: {used:.0f} MB (goal: at most {goal})")
    idle = results.median("round trip, reload, us, p99", "idle")
    for kind in results.values.get("reload, seconds", {}):
        during_reload = results.median("round trip, reload, us, p99", kind)
        if idle and during_reload:
            say(
                f"round trip during a reload, {kind}, p99: {during_reload / idle:.2f} x idle (goal: at most 2)"
            )
