"""How much of a peer's throughput remains under floods from strangers, and the cost of each of their datagrams for the
forwarder.

A stranger next to the receiving host sends datagrams that belong to no session while TCP comes through the tunnel.  In
the same rounds, the same flood goes to an unused port, which shows its cost without an agent, and TCP runs without a
flood.  The cost of a datagram is the forwarder's processor time while only the flood arrives, so that it is the same on
a busy machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.lab import Underlay, set_up
from scripts.benchmarks.measures import cpu_seconds, tcp
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

    from scripts.benchmarks.nodes import Pair
    from tests.netns.topology import Namespace

FLOODS = ("noise", "transport", "fragment", "merged noise", "merged transport", "merged fragment")
QUIET, UNUSED, ATTACKED = "no flood", "at an unused port", "at the agent's port"
ATTACKER, TARGET, PORT, UNUSED_PORT = "198.51.100.1", "198.51.100.2", 51820, 9  # 9: discard
MARGIN = 0.5  # seconds of flood before and after the measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--rate", type=float, default=100_000, help="datagrams per second (default 100000)")
    parser.add_argument("--floods", default=",".join(FLOODS), help=f"of: {', '.join(FLOODS)}")
    parser.add_argument("--only-price", action="store_true", help="leave the throughput out")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    floods = [name.strip() for name in arguments.floods.split(",")]
    for name in floods:
        if name not in FLOODS:
            fail(f"--floods: there is no {name!r}; there are {', '.join(FLOODS)}")
    if not 1 <= arguments.rounds <= 100 or not 1 <= arguments.seconds <= 30 or arguments.rate > 1e6:
        fail("rounds are 1 to 100, seconds 1 to 30, the rate at most 1000000: the whole must end")
    results = Figures(UNUSED, second_reference=QUIET)
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        pair = set_up(lab, folder, "attacked", "ours", Underlay())
        attacker = join(lab, pair)
        for number in range(arguments.rounds):
            for name in floods:
                say(f"round {number + 1} of {arguments.rounds}: {name}")
                price(pair, attacker, name, arguments, results)
                if not arguments.only_price:
                    throughput(pair, attacker, name, arguments, results)
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def join(lab: Lab, pair: Pair) -> Namespace:
    """Return a namespace that reaches the receiving host by its own cable, with any source address."""
    attacker = lab.namespace("attacker")
    lab.veth(attacker.end("eth0", f"{ATTACKER}/24"), pair.b.host.end("eth9", f"{TARGET}/24"))
    pair.b.host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth9.rp_filter=0")
    for namespace in (attacker, pair.b.host):  # both merge arriving datagrams
        namespace.run("ethtool", "-K", "eth9" if namespace is pair.b.host else "eth0", "gro", "on")
    return attacker


def price(
    pair: Pair, attacker: Namespace, name: str, arguments: argparse.Namespace, results: Figures
) -> None:
    """Record the cost of a flood's datagram for the receiving forwarder, and how many reach it per second."""
    forwarder = pair.b.processes[-1]
    with flooded(attacker, name, arguments.seconds + 2 * MARGIN, arguments.rate) as process:
        time.sleep(MARGIN)
        before, began = cpu_seconds(forwarder), time.monotonic()
        time.sleep(arguments.seconds)
        used, took = cpu_seconds(forwarder) - before, time.monotonic() - began
        told = json.loads(process.communicate(timeout=60)[0])
    sent = told["sent"] / told["seconds"]
    results.note("thousand datagrams a second", name, sent / 1000)
    results.note("share of a core", name, used / took)
    results.note("us of the forwarder for each", name, used / took / sent * 1e6)


def throughput(
    pair: Pair, attacker: Namespace, name: str, arguments: argparse.Namespace, results: Figures
) -> None:
    """Record the throughput of a stream without a flood, and beside one at either port."""
    column = f"Gbit/s of TCP, {name}"
    results.note(column, QUIET, tcp(pair, "hosts", arguments.seconds)[0])
    for target, port in ((UNUSED, UNUSED_PORT), (ATTACKED, PORT)):
        with flooded(attacker, name, arguments.seconds + 2 * MARGIN + 1, arguments.rate, port):
            results.note(column, target, tcp(pair, "hosts", arguments.seconds)[0])


class flooded:  # noqa: N801
    """Runs a flood for the length of a block."""

    def __init__(self, attacker: Namespace, name: str, seconds: float, rate: float, port: int = PORT) -> None:
        command = (sys.executable, "-m", "scripts.benchmarks.attacker", TARGET, str(port), str(seconds))
        self._process = attacker.popen(*command, str(rate), name, stdout=subprocess.PIPE)

    def __enter__(self) -> subprocess.Popen[str]:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
