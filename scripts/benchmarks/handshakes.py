"""Handshakes as responder: how many per second, and how a storm of them affects the packets of an existing session.

The initiations are prepared beforehand, each with its own key, which is in the responder's table, and each comes from
its own address.  For the rate, a bounded number is in progress at a time, too few to make the responder ask for
cookies, until all are answered: once from addresses where the responder has not heard the peers before, and once from
where it has; and once more with so many at a time that it does ask.  For the storm, all of 500 arrive at once, or a
bounded number at a time, while two overlay hosts, one of which is the responder, exchange pings every 2 ms through
their session.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.crypto.keys import PrivateKey, encode_key
from scripts.benchmarks import crowd, figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.pings import Pings, during, quantile
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

    from scripts.benchmarks.crowd import CrowdedPair

WINDOW = 32  # in progress at a time: half as many as make the responder ask for cookies
CROWD_NETWORK = "198.18.0.0/16"  # where the initiators are (RFC 2544)
PORT = 51820
PAUSE = 1.5  # seconds between storms: the responder is under load for one more
NEW, KNOWN, COOKIES = "few at a time, new addresses", "few at a time, known addresses", "all at once"
AT_ONCE, PACED = "storm, all at once", "storm, few at a time"
GOAL_RATE, GOAL_LATENCY = 1500, 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default 5)")
    parser.add_argument("--peers", type=int, default=1000, help="initiators in the table (default 1000)")
    parser.add_argument("--storm", type=int, default=500, help="handshakes of a storm (default 500)")
    parser.add_argument(
        "--window", type=int, default=WINDOW, help=f"in progress at a time (default {WINDOW})"
    )
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    if not 1 <= arguments.rounds <= 20 or not 1 <= arguments.peers <= 3000:
        fail(
            "--rounds must be 1 to 20, and --peers 1 to 3000, because each peer has a new address in each round"
        )
    if not 1 <= arguments.storm <= arguments.peers:
        fail("--storm must be at most --peers: a storm has at most one handshake of each peer")
    results = Figures("idle")
    answers: dict[str, list[float]] = {title: [] for title in ("idle", AT_ONCE, PACED)}
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        keys = [PrivateKey.generate(os.urandom) for _ in range(arguments.peers)]
        say(f"setting up two overlay hosts with {arguments.peers} initiators in the table")
        initiators = crowd.others(arguments.peers, 1, [encode_key(key.public) for key in keys])
        pair = crowd.set_up(lab, folder, "h", "ours", list(initiators))
        total = arguments.rounds * (3 * arguments.peers + 2 * arguments.storm)
        storm = Storm(lab, pair, keys, -(-total // arguments.peers))
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}")
            for title, window, is_moved in (
                (NEW, arguments.window, True),
                (KNOWN, arguments.window, False),
                (COOKIES, arguments.peers, False),
            ):
                measure_rate(pair, storm, arguments.peers, window, is_moved, title, results)
            for title, window in ((AT_ONCE, arguments.storm), (PACED, arguments.window)):
                idle, stormy = ping_during(pair, storm, arguments.storm, window)
                answers["idle"] += idle
                answers[title] += stormy
    sum_up(answers, results)
    results.show()
    say_goals(results)
    figures.write(arguments.json, vars(arguments), {"results": results.values})


class Storm:
    """The crowd of initiators, in a namespace next to the responder, the first node of *pair*."""

    def __init__(self, lab: Lab, pair: CrowdedPair, keys: list[PrivateKey], each: int) -> None:
        """Prepare *each* initiations for each of *keys*."""
        place = lab.namespace("storm")
        lab.veth(place.end("eth0", "203.0.113.2/24"), pair.a.host.end("eth1", "203.0.113.1/24"))
        pair.a.host.run("ip", "route", "add", CROWD_NETWORK, "via", "203.0.113.2")
        place.run("ip", "route", "add", "local", CROWD_NETWORK, "dev", "lo")
        self._process = place.popen(
            *(sys.executable, "-m", "scripts.benchmarks.storm"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._say(
            json.dumps(
                {
                    "responder": pair.a.public_key,
                    "address": "203.0.113.1",
                    "port": PORT,
                    "storms": each,
                    "first_address": str(ip_network(CROWD_NETWORK)[1]),
                    "initiators": [key.to_base64() for key in keys],
                }
            )
        )
        say(f"preparing {each * len(keys)} initiations")
        if self._hear() != "ready":
            raise AssertionError("the initiators did not start")

    def blow(self, count: int, window: int, is_moved: bool = False) -> dict[str, float]:
        """Make *count* handshakes, *window* at a time; return completed, cookies, lost, began and ended."""
        self._say(f"{count} {window} {int(is_moved)}")
        told: dict[str, float] = json.loads(self._hear())
        return told

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# Measuring


def measure_rate(
    pair: CrowdedPair, storm: Storm, count: int, window: int, is_moved: bool, title: str, results: Figures
) -> None:
    """Record how many handshakes per second were answered, and the cost of one for the responder."""
    time.sleep(PAUSE)
    used = sum(map(cpu_seconds, pair.a.processes))
    told = storm.blow(count, window, is_moved)
    used = sum(map(cpu_seconds, pair.a.processes)) - used
    took = told["ended"] - told["began"]
    results.note("handshakes per second", title, told["completed"] / took if took else 0.0)
    results.note("CPU us for one, agent and forwarder", title, used / max(1.0, told["completed"]) * 1e6)
    results.note("cookies for 100 handshakes", title, told["cookies"] / count * 100)
    results.note("of 100 handshakes not answered within a second", title, told["lost"] / count * 100)


def ping_during(pair: CrowdedPair, storm: Storm, count: int, window: int) -> tuple[list[float], list[float]]:
    """Return how long pings took before a storm of *count* handshakes, and during it."""
    time.sleep(PAUSE)
    sender, _, address = pair.ends("containers")
    pings = Pings(sender, address)
    time.sleep(PAUSE)
    told = storm.blow(count, window)
    answers = pings.stop()
    idle = told["began"] - PAUSE / 2, told["began"]
    return during(answers, [idle]), during(answers, [(told["began"], told["ended"])])


# Reporting


def sum_up(answers: dict[str, list[float]], results: Figures) -> None:
    """Record the distribution of the pings of all rounds."""
    for title, values in answers.items():
        for share in (0.5, 0.99):
            results.note(f"round trip, us, p{share * 100:g}", title, quantile(values, share))
        results.note("round trip, us, most", title, max(values, default=math.inf))
        results.note("pings", title, len(values))


def say_goals(results: Figures) -> None:
    """Print the goals."""
    say()
    for title in (NEW, KNOWN):
        rate = results.median("handshakes per second", title)
        say(f"handshakes per second as responder, {title}: {rate:.0f} (goal: at least {GOAL_RATE})")
    for title in (AT_ONCE, PACED):
        ratio = results.ratio("round trip, us, p99", title, "idle")
        if ratio is not None:
            say(f"round trip, p99, {title}: {ratio:.2f} x idle (goal: at most {GOAL_LATENCY:g})")
