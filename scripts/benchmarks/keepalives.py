"""A start with many peers that have keepalives: how soon all are up, and how long another peer's packets wait.

An overlay host has --peers peers with an endpoint and a keepalive; one process answers for all of them.  Its agent is
started, and later its forwarder is killed, so that all sessions are made again; both times a container exchanges pings
with one behind another overlay host.  A measurement ends when each peer has received data under a new session.  Then
the state of all peers is requested while the pings go on.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.host import control
from scripts.benchmarks import crowd, figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.lab import make_node, start_ours
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.nodes import descendants
from scripts.benchmarks.pings import Pings, during, quantile
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.netns.topology import Namespace

PEER_TOML = """
[peers.kept{number}]
public_key = "{public_key}"
endpoint = "203.0.113.2:{port}"
keepalive = 25
subnets = ["{subnet}"]
"""
FIRST_PORT = 10_000
LONGEST = 120.0  # seconds until all are up
IDLE = 3.0  # seconds of pings with nothing else to do
QUESTIONS = 10
START, RESTART, STATUS, QUIET = "start", "forwarder restarted", "status of all", "idle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--peers", type=int, default=10_000, help="with a keepalive (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="starts (default 3)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    if not 1 <= arguments.peers <= 50_000 or not 1 <= arguments.rounds <= 20:
        fail("--peers must be 1 to 50000, because each needs a port, and --rounds 1 to 20")
    results = Figures(QUIET)
    keys = [PrivateKey.generate(os.urandom) for _ in range(arguments.peers)]
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        with Lab() as lab, ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
            measure(lab, folder, keys, results)
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def measure(lab: Lab, folder: Path, keys: Sequence[PrivateKey], results: Figures) -> None:
    """Record the cost of a start, a restart of the forwarder, and requests for the state of all peers."""
    pair, crowded = set_up(lab, folder, keys)
    answers = Responder(crowded, pair.a.public_key, keys)
    sender, _, address = pair.ends("containers")

    began = time.time()
    start_ours(pair.a, pair.peers_file("a"), folder / "ka.key")
    pings = Pings(sender, address)
    initiations = answers.wait_for_all()
    _note(results, START, pings, began, time.time())
    results.note("initiations for 100 peers", START, initiations / len(keys) * 100)

    agent, forwarder = pair.a.processes[0], descendants(pair.a.processes[0])[-1]
    pings = Pings(sender, address)
    time.sleep(IDLE)
    began = time.time()
    os.kill(forwarder, signal.SIGKILL)
    initiations = answers.wait_for_all()
    _note(results, RESTART, pings, began, time.time())
    results.note("initiations for 100 peers", RESTART, initiations / len(keys) * 100)

    pings = Pings(sender, address)
    time.sleep(IDLE)
    asked, used = time.time(), cpu_seconds(agent)
    path = control.DIRECTORY / f"overlay0.{pair.a.host.inode}.sock"
    for _ in range(QUESTIONS):
        control.request(path, {"op": "status"})
    told, used = time.time(), cpu_seconds(agent) - used
    came = pings.stop()
    for title, values in (
        (QUIET, during(came, [(asked - IDLE, asked)])),
        (STATUS, during(came, [(asked, told)])),
    ):
        _note_waits(results, title, values)
    results.note("seconds", STATUS, (told - asked) / QUESTIONS)
    results.note("CPU of the agent, seconds", STATUS, used / QUESTIONS)


def set_up(lab: Lab, folder: Path, keys: Sequence[PrivateKey]) -> tuple[crowd.CrowdedPair, Namespace]:
    """Return two overlay hosts, the second of which is running, and the namespace of the first one's other peers."""
    a, b = (make_node(lab, f"k{letter}", number) for number, letter in ((1, "a"), (2, "b")))
    lab.veth(a.host.end("eth0", "192.0.2.1/24"), b.host.end("eth0", "192.0.2.2/24"))
    crowded = lab.namespace("kept")
    lab.veth(crowded.end("eth0", "203.0.113.2/24"), a.host.end("eth1", "203.0.113.1/24"))
    pair = crowd.CrowdedPair("ours", a, b, folder=folder)
    pair.write("b", [])
    start_ours(b, pair.peers_file("b"), folder / "kb.key")
    subnets = [other.subnets[0] for other in crowd.others(len(keys), 1)]
    text = crowd.peers_toml(pair, [])
    for number, (key, subnet) in enumerate(zip(keys, subnets, strict=True)):
        text += PEER_TOML.format(
            number=number, public_key=encode_key(key.public), port=FIRST_PORT + number, subnet=subnet
        )
    pair.peers_file("a").write_text(text)
    return pair, crowded


class Responder:
    """The process that answers for all peers with keepalives."""

    def __init__(self, place: Namespace, initiator: str, keys: Sequence[PrivateKey]) -> None:
        self._process = place.popen(
            *(sys.executable, "-m", "scripts.benchmarks.responder"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        peers = [(key.to_base64(), FIRST_PORT + number) for number, key in enumerate(keys)]
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"initiator": initiator, "address": "203.0.113.2", "peers": peers})
        )
        self._process.stdin.close()
        if self._lines.get(timeout=LONGEST) != "ready":
            raise AssertionError("the responder did not start")

    def wait_for_all(self) -> int:
        """Wait until each peer has received data under a new session; return how many initiations there were."""
        try:
            line = self._lines.get(timeout=LONGEST)
        except queue.Empty:
            raise AssertionError(f"not all peers were up after {LONGEST:g} s") from None
        return int(line.removeprefix("all "))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())


def _note(results: Figures, title: str, pings: Pings, began: float, ended: float) -> None:
    """Record the waits of *pings* between *began* and *ended*, when all were up."""
    _note_waits(results, title, during(pings.stop(), [(began, ended)]))
    results.note("seconds", title, ended - began)


def _note_waits(results: Figures, title: str, values: Sequence[float]) -> None:
    answered = [value for value in values if math.isfinite(value)]
    results.note("round trip, ms, p50", title, quantile(answered, 0.5) / 1000)
    results.note("round trip, ms, p99", title, quantile(answered, 0.99) / 1000)
    results.note("round trip, ms, most", title, max(answered, default=math.inf) / 1000)
    results.note("lost, %", title, (1 - len(answered) / len(values)) * 100 if values else 100.0)
