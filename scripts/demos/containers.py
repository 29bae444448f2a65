"""Containers on hosts that find each other: an etcd, two hosts that join, a third, and one that leaves.

Each host joins with one command, gets a subnet for its containers, and attaches those that a runtime starts, by CNI.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

from scripts.demos.runtimes import runtime
from scripts.demos.screen import DemoError
from scripts.demos.stage import OVERLAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.demos.runtimes import Runtime
    from scripts.demos.stage import Stage

ETCD = "192.0.2.10"
URL = f"etcd://{ETCD}:2379/office"
HOSTS = {"paris": "192.0.2.11", "tokyo": "192.0.2.12", "berlin": "192.0.2.13"}
FIRST, LATE, LEAVING = ("paris", "tokyo"), "berlin", "tokyo"
PREFIX = "10.244.0.0/16"
KNOCK = f"import socket; socket.create_connection(('{ETCD}', 2379), 1)"

CLOSING = """\
What you saw: hosts that joined with one command and found each other; containers that got an address of their host's
subnet and reached each other through encrypted tunnels, without a bridge and without any configuration of their own; an
agent that was killed, and took over its containers again; and a host that left, and gave back its subnet.
"""


class Demo:
    """The steps of the demo on a stage."""

    closing = CLOSING

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._runtimes: dict[str, Runtime] = {}
        self._addresses: dict[str, str] = {}

    def run(self) -> None:
        """Take every step.  Raises DemoError at the first that fails."""
        if shutil.which("etcd") is None:
            raise DemoError("etcd is not installed (Debian: etcd-server)")
        step = self._stage.step
        with step("three hosts and an etcd on an underlay"):
            self._build()
        with step(f"`overlay network create --peers {URL} --prefix {PREFIX}`, anywhere"):
            self._stage.inside("etcd", str(OVERLAY), "network", "create", "--peers", URL, "--prefix", PREFIX)
        with step(f"`overlay up --peers {URL}` on {' and '.join(FIRST)}") as notes:
            notes.append(self._join(*FIRST))
        with step("`overlay cni install` on both") as notes:
            for host in FIRST:
                self._runtimes[host] = runtime(self._stage, host, self._runtimes.get(FIRST[0]))
            notes.append(f"containers by {self._runtimes[FIRST[0]].name}")
        with step("a container on each") as notes:
            notes.append(", ".join(self._start(host) for host in FIRST))
        for source, target in (FIRST, FIRST[::-1]):
            with step(f"ping from the container of {source} to that of {target}") as notes:
                notes.append(self._ping(source, target))
        with step(
            f"the agent of {FIRST[0]} is killed with `kill -9` and started again while they ping"
        ) as notes:
            notes.append(self._restart(FIRST[0]))
        with step(f"{LATE} joins, with a container") as notes:
            joined = self._join(LATE)
            self._runtimes[LATE] = runtime(self._stage, LATE, self._runtimes[FIRST[0]])
            notes.append(f"{joined}, {self._start(LATE)}")
        for source, target in ((FIRST[0], LATE), (LATE, FIRST[1])):
            with step(f"ping from the container of {source} to that of {target}") as notes:
                notes.append(self._ping(source, target))
        with step(f"`overlay down --leave` on {LEAVING}") as notes:
            notes.append(self._leave(LEAVING))
        with step(f"ping from the container of {FIRST[0]} to that of {LATE}") as notes:
            notes.append(self._ping(FIRST[0], LATE))
        self._stage.say(f"\n`overlay status` on {FIRST[0]}:\n")
        self._stage.say(self._stage.inside(FIRST[0], str(OVERLAY), "status"))

    def doors(self) -> Sequence[str]:
        """Return the namespaces that are worth a visit."""
        return [*HOSTS, "etcd"]

    def questions(self) -> list[str]:
        """Return commands to try, each preceded by its namespace."""
        return [
            f"paris {OVERLAY} status",
            "paris ip route",
            f"etcd {OVERLAY} network show --peers {URL}",
        ]

    # The network

    def _build(self) -> None:
        stage = self._stage
        stage.add_namespace("underlay")
        stage.add_bridge("underlay", "switch")
        for name, address in {"etcd": ETCD, **HOSTS}.items():
            stage.add_namespace(name)
            stage.add_cable(name, "eth0", "underlay", name)
            stage.inside("underlay", "ip", "link", "set", name, "master", "switch")
            stage.inside(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            stage.inside(name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for host in HOSTS:
            stage.keygen(host)
        client, peer = f"http://{ETCD}:2379", "http://127.0.0.1:2380"
        with stage.log("etcd").open("w") as log:
            stage.start(
                *("etcd", "etcd", "--name", "one", "--data-dir", stage.folder / "etcd"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"one={peer}"),
                stdout=log,
                stderr=log,
            )
        stage.wait_for(self._etcd_answers, "etcd did not answer")

    def _etcd_answers(self) -> bool:
        try:
            self._stage.inside("etcd", sys.executable, "-c", KNOCK)
        except DemoError:
            return False
        return True

    # Steps

    def _join(self, *hosts: str) -> str:
        took = self._stage.start_agents(hosts, URL)
        for host in hosts:
            self._stage.wait_for(functools.partial(self._has_subnet, host), f"{host} got no subnet")
        held = ", ".join(f"{host} has {' and '.join(self._subnets(host))}" for host in hosts)
        return f"ready after {took:.2f} s, {held}"

    def _has_subnet(self, host: str) -> bool:
        return bool(self._subnets(host))

    def _subnets(self, host: str) -> list[str]:
        return [str(each) for each in self._status(host)["store"]["subnets"]]

    def _status(self, host: str) -> dict[str, Any]:
        status: dict[str, Any] = self._stage.ask(host, op="status")["status"]
        return status

    def _start(self, host: str) -> str:
        self._addresses[host] = self._runtimes[host].start(f"{host}-web")
        return f"{self._addresses[host]} on {host}"

    def _ping(self, source: str, target: str) -> str:
        """Ping until two answers have come; return how long they took."""
        words = ("ping", "-c", "2", "-w", "15", self._addresses[target])
        try:
            said = self._runtimes[source].run(f"{source}-web", *words)
        except DemoError:
            raise DemoError(f"the container of {target} did not answer within 15 s") from None
        return " and ".join(f"{float(each):.2f} ms" for each in re.findall(r"time=([\d.]+) ms", said))

    def _restart(self, host: str) -> str:
        """Kill the agent of *host* while its container is pinged; return the result."""
        other = next(name for name in FIRST if name != host)
        answers = self._stage.folder / "pings"
        with answers.open("w") as file:
            ping = self._stage.popen(
                *self._runtimes[other].entering(f"{other}-web"), "ping", self._addresses[host], stdout=file
            )

        def answered() -> list[int]:
            return [int(each) for each in re.findall(r"seq=(\d+) ", answers.read_text())]

        patience = "the container did not answer"
        self._stage.wait_for(lambda: len(answered()) >= 3, patience)
        self._stage.kill_agent(host)
        last = max(answered())
        took = self._stage.start_agents([host], URL)
        self._stage.wait_for(lambda: sum(number > last for number in answered()) >= 3, patience)
        self._stage.end(ping)
        numbers = answered()
        lost = max(numbers) - min(numbers) + 1 - len(set(numbers))
        return f"ready again after {took:.2f} s, {lost} of {max(numbers)} pings lost, one a second"

    def _leave(self, host: str) -> str:
        self._stage.let_end(host)
        self._stage.inside(host, str(OVERLAY), "down", "--leave")
        others = [name for name in HOSTS if name != host]

        def is_gone() -> bool:  # its session stays for a minute, because it may come back
            rows = [row for name in others for row in self._status(name)["peers"] if row["name"] == host]
            return not any(row["subnets"] for row in rows)

        self._stage.wait_for(is_gone, f"{host} did not leave")
        return f"{' and '.join(others)} no longer have a route to its containers"
