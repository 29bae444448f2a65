"""How long it takes until a client of a virtual service is served again when a director or a server fails."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from scripts.benchmarks.console import progress
from scripts.benchmarks.farm import VIP, Farm
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.figures import Figures
    from tests.netns.topology import Lab, Namespace

DATAGRAMS, CONNECTIONS = 9000, 80  # ports
EVERY, RETRIES = 0.5, 0
BEFORE, AFTER = 0.5, 3.0  # seconds of traffic before and after an event
FAILOVER_TOML = f"""
[services.web]
address = "{VIP}"
protocol = ["tcp", "udp"]
ports = [{DATAGRAMS}, {CONNECTIONS}]
directors = ["lb1", "lb2"]
servers = ["web1", "web2"]
check = {{ kind = "tcp", port = {CONNECTIONS}, every = {EVERY}, retries = {RETRIES}, timeout = 2, warmup = 0 }}
"""
COLUMN = "failover, ms"
GAP, DRAINED, KILLED = (
    "director killed: no packet arrives",
    "server drained: new connections after the command",
    "server killed: new connections fail",
)


def measure(lab: Lab, folder: Path, rounds: int, results: Figures) -> None:
    """Make directors and servers fail, *rounds* times each."""
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}: failover")
        farm = Farm(lab, folder, f"f{number}", ("client", "lb1", "lb2", "web1", "web2"), FAILOVER_TOML)
        client = farm.nodes["client"].host
        servers = {name: answering(farm.nodes[name].host, name) for name in ("web1", "web2")}
        for director in ("lb1", "lb2"):
            farm.wait_states(director, "web", web1="up", web2="up")
        results.note(COLUMN, DRAINED, drained(farm, client))
        results.note(COLUMN, KILLED, killed(farm, client, servers["web2"]))
        results.note(COLUMN, GAP, gap(farm, client))
        for node in farm.nodes.values():
            node.stop()


def answering(host: Namespace, name: str) -> subprocess.Popen[str]:
    """Start a program that answers connections with the name of the server, and echoes datagrams."""
    process = host.popen(
        *(
            sys.executable,
            "-m",
            "scripts.benchmarks.served",
            "answer",
            name,
            str(CONNECTIONS),
            str(DATAGRAMS),
        ),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise AssertionError(f"{name} does not answer")
    return process


class Asking:
    """A client that sends requests from now on; stop() returns when each was sent, and which server answered."""

    def __init__(self, client: Namespace, how: str, port: int) -> None:
        self._process = client.popen(
            *(sys.executable, "-m", "scripts.benchmarks.served", how, VIP, str(port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        time.sleep(BEFORE)

    def stop(self, after: float = AFTER) -> list[tuple[float, str]]:
        """Go on for a while, then return times of CLOCK_MONOTONIC with the answers, ``""`` for none."""
        time.sleep(after)
        told, _ = self._process.communicate("", timeout=30)
        return [(at, answer) for at, answer in json.loads(told)]


def drained(farm: Farm, client: Namespace) -> float:
    """Return for how many milliseconds new connections went to a drained server after the command had ended."""
    asking = Asking(client, "connect", CONNECTIONS)
    for director in ("lb1", "lb2"):
        farm.overlay(director, "services", "drain", "web/web1")
    began = time.monotonic()
    answers = asking.stop(0.5)
    for director in ("lb1", "lb2"):
        farm.overlay(director, "services", "enable", "web/web1")
    return last(answers, began, "web1")


def killed(farm: Farm, client: Namespace, server: subprocess.Popen[str]) -> float:
    """Return for how many milliseconds new connections failed after the end of web2's program."""
    asking = Asking(client, "connect", CONNECTIONS)
    began = time.monotonic()
    server.kill()
    answers = asking.stop()
    farm.wait_states("lb1", "web", web2="down")
    return last(answers, began, "")


def last(answers: list[tuple[float, str]], began: float, answer: str) -> float:
    """Return how long after *began*, in milliseconds, the last request was sent that got *answer*."""
    return max((at - began for at, said in answers if said == answer and at > began), default=0.0) * 1000


def director_of(farm: Farm) -> str:
    """Return the director that the client sends to."""
    (service,) = json.loads(farm.overlay("client", "services", "web", "--json"))["services"]
    found = re.search(r"lb\d", service["reason"])
    if found is None:
        raise AssertionError(f"the client does not know which director is active: {service['reason']}")
    return found[0]


def gap(farm: Farm, client: Namespace) -> float:
    """Return for how many milliseconds datagrams of a flow did not arrive after its director was killed."""
    active = director_of(farm)
    asking = Asking(client, "send", DATAGRAMS)
    for pid in farm.nodes[active].processes:
        subprocess.run(["kill", "-9", str(pid)], check=False)
    answers = [at for at, said in asking.stop() if said]
    if len(answers) < 2:
        raise AssertionError("no datagram was answered")
    wait_until(lambda: not farm.nodes[active].processes, 10, f"{active} has ended")
    return max(later - earlier for earlier, later in itertools.pairwise(answers)) * 1000
