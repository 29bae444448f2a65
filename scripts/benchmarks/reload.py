"""A reload with many peers: how long it takes, and how long others wait meanwhile.

An overlay host has --peers peers in its table.  Its peers file is replaced and SIGHUP is sent; meanwhile the control
socket is asked for a peer, and another peer shakes hands, one question after the other.  The changes are one peer's
subnet, nothing at all, a thousand new peers, and every peer.  A reload ends when the agent says so; the longest wait is
recorded.  With --outside, the subnets are outside the network's prefixes, so each has routes of its own.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.host import control
from scripts.benchmarks import crowd, figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.handshakes import Storm
from scripts.benchmarks.measures import memory_mb
from tests.netns.topology import Lab, wait_until

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from scripts.benchmarks.crowd import CrowdedPair, Other

CALLERS = 50  # peers that shake hands, in turns
CALLS = 400  # of each
PAUSE = 0.02  # seconds between two questions, so that asking itself causes no load
RELOAD_TIME = 120.0  # seconds at most
ONE, NOTHING, MANY, ALL = "one peer changed", "nothing changed", "1,000 peers new", "every peer new"
THOUSAND = 1000
# Behind those of two generations of 130,000
SPARE, SPARE_FOR_MANY = int(IPv4Address("10.95.200.0")), int(IPv4Address("10.96.0.0"))
GOAL_TIME, GOAL_WAIT = 1.0, 0.1  # seconds at 10,000 peers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--peers", type=int, default=10_000, help="in the table (default 10000)")
    parser.add_argument("--subnets", type=int, default=1, help="of each peer (default 1)")
    parser.add_argument("--outside", action="store_true", help="subnets outside the network's prefixes")
    parser.add_argument("--reloads", type=int, default=3, help="of each kind (default 3)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    if not 1 <= arguments.reloads <= 20 or not 100 <= arguments.peers * arguments.subnets <= 130_000:
        fail(
            "--reloads must be 1 to 20, and all peers must have 100 to 130000 subnets, which fit into the network"
        )
    results = Figures(NOTHING)
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        keys = [PrivateKey.generate(os.urandom) for _ in range(CALLERS)]
        callers = list(crowd.others(CALLERS, 1, [encode_key(key.public) for key in keys]))
        others = list(crowd.others(arguments.peers - CALLERS - 2, arguments.subnets, generation=1))
        say(f"setting up two overlay hosts with {arguments.peers} peers")
        prefixes = crowd.HOSTS_ALONE if arguments.outside else crowd.PREFIXES
        pair = crowd.set_up(lab, folder, "r", "ours", [*callers, *others], prefixes=prefixes)
        storm = Storm(lab, pair, keys, CALLS)
        for number in range(arguments.reloads):
            changed = replace(others[len(others) // 2], subnets=(f"{IPv4Address(SPARE + 16 * number)}/28",))
            others[len(others) // 2] = changed
            measure(pair, storm, [*callers, *others], ONE, results)
            measure(pair, storm, [*callers, *others], NOTHING, results)
            count = min(THOUSAND, len(others) // 3)
            fresh = crowd.others(count, arguments.subnets, first=SPARE_FOR_MANY)
            others[:count] = [replace(each, name=f"new-{each.name}") for each in fresh]
            measure(pair, storm, [*callers, *others], MANY, results)
            others = list(
                crowd.others(len(others), arguments.subnets, generation=1 + number % 2 + (number % 2 == 0))
            )
            measure(pair, storm, [*callers, *others], ALL, results)
        results.note("memory of agent and forwarder, MB", ALL, sum(map(memory_mb, pair.a.processes)))
    results.show()
    report(results)
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def measure(pair: CrowdedPair, storm: Storm, peers: Sequence[Other], kind: str, results: Figures) -> None:
    """Record how long one reload took, and the longest wait for each kind of question meanwhile."""
    say(f"reload: {kind}")
    path = control.DIRECTORY / f"overlay0.{pair.a.host.inode}.sock"
    done = pair.log_of("a").count(" reloaded ")
    agent = pair.a.processes[0]
    waits = {
        "control socket": Waits(lambda: control.request(path, {"op": "peer", "name": "b"})),
        "handshake": Waits(lambda: storm.blow(1, 1)),
    }
    time.sleep(1)
    pair.write("a", peers)
    began = time.monotonic()
    for each in waits.values():
        each.forget()
    os.kill(agent, signal.SIGHUP)
    wait_until(lambda: pair.log_of("a").count(" reloaded ") > done, RELOAD_TIME, "the reload")
    results.note("reload, seconds", kind, time.monotonic() - began)
    time.sleep(0.5)
    for name, each in waits.items():
        longest, median = each.stop()
        results.note(f"{name}, longest wait, seconds", kind, longest)
        results.note(f"{name}, median wait, seconds", kind, median)


class Waits:
    """Asks *question* again and again, and records how long it takes."""

    def __init__(self, question: Callable[[], object]) -> None:
        self._question = question
        self._took: list[float] = []
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Count only questions from now on."""
        self._took.clear()

    def stop(self) -> tuple[float, float]:
        """Return the longest wait and the median."""
        self._is_stopped.set()
        self._thread.join()
        return max(self._took), statistics.median(self._took)

    def _ask(self) -> None:
        while not self._is_stopped.wait(PAUSE):
            began = time.monotonic()
            self._question()
            self._took.append(time.monotonic() - began)


def report(results: Figures) -> None:
    """Print the goals."""
    say()
    took = results.median("reload, seconds", ONE)
    say(f"one peer changed: {took:.2f} s (goal at 10,000 peers: at most {GOAL_TIME:g})")
    for name in ("control socket", "handshake"):
        longest = max(max(values) for values in results.values[f"{name}, longest wait, seconds"].values())
        say(f"{name}: waits of at most {longest:.3f} s (goal: {GOAL_WAIT:g})")
