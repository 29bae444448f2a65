"""The cost of checks of servers for a director, and how many it makes in time.

There are one director and --hosts hosts, each with --ports servers behind it by port mapping; services use all of them
until there are --checks checks.  The processor time of the agent and of the forwarder is measured while all checks run,
which is the same on a busy machine, as well as the connections that were started, as the director's kernel counts them,
without repeated SYNs.  With --hanging, some servers do not answer: they drop packets or, for http, read the request and
stay silent.
"""

from __future__ import annotations

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
from scripts.benchmarks.measures import cpu_seconds
from tests.netns.network import Network
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

    from tests.netns.network import Host

FIRST_PORT = 8001
GOAL = 0.5  # cores for 10,000 checks every 6 seconds, agent and forwarder together
TIMEOUT = 5  # seconds of a check
KINDS = ("tcp", "http")
DROPPING = """
table inet bench {{
    chain in {{
        type filter hook input priority 0
        tcp dport {first}-{last} drop
    }}
}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--checks", type=int, default=10_000, help="of all services (default 10000)")
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two checks (default 6)")
    parser.add_argument("--kinds", default="tcp,http", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--hanging", default="0,10", help="percent of the servers (default 0,10)")
    parser.add_argument("--hosts", type=int, default=4, help="with servers (default 4)")
    parser.add_argument("--ports", type=int, default=25, help="of each host, with a server each (default 25)")
    parser.add_argument("--rounds", type=int, default=2, help="of all checks (default 2)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement (default 12)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    kinds = [kind.strip() for kind in arguments.kinds.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            fail(f"--kinds: there is no {kind!r}; there are {', '.join(KINDS)}")
    each = arguments.hosts * arguments.ports
    if (
        not 1 <= arguments.hosts <= 10
        or not 1 <= arguments.ports <= 60
        or not each <= arguments.checks <= 20_000
    ):
        fail("hosts are 1 to 10, ports 1 to 60, checks from hosts times ports to 20000")
    results = Figures("tcp, 0 % hang")
    for kind in kinds:
        for share in map(int, arguments.hanging.split(",")):
            with Lab() as lab, ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
                farm = Farm(lab, folder, kind, share, arguments)
                farm.measure(results, f"{kind}, {share} % hang")
    results.show()
    used = results.median("share of a core, both", f"{kinds[0]}, 0 % hang")
    if used is not None:
        say(f"\n{arguments.checks} checks by {kinds[0]}: {used:.2f} of a core (goal for 10,000: {GOAL})")
    figures.write(arguments.json, vars(arguments), {"results": results.values})


class Farm:
    """A director, and hosts with many servers each."""

    def __init__(self, lab: Lab, folder: Path, kind: str, share: int, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._network = Network(lab, folder, is_forked=False)
        self._director = self._network.host("lb")
        self._hosts = [self._network.host(f"web{number}") for number in range(1, arguments.hosts + 1)]
        silent = arguments.ports * share // 100
        for host in self._hosts:
            self._serve(host, kind, silent)
        self._network.more = self._services(kind)
        say(f"{kind}, {share} % of the servers hang: starting {arguments.hosts + 1} hosts")
        for host in self._hosts:
            host.write()
            host.start()
        self._director.write()
        self._director.start()

    def _serve(self, host: Host, kind: str, silent: int) -> None:
        ports = self._arguments.ports
        process = host.namespace.popen(
            *(sys.executable, "-m", "scripts.benchmarks.checked", str(FIRST_PORT), str(ports), str(silent)),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kind == "tcp" and silent:
            last = FIRST_PORT + ports - 1
            rules = DROPPING.format(first=last - silent + 1, last=last)
            host.namespace.run("nft", "-f", "-", stdin=rules)

    def _services(self, kind: str) -> str:
        arguments = self._arguments
        servers = ", ".join(
            f'{{ peer = "{host.name}", port = {FIRST_PORT + number} }}'
            for host in self._hosts
            for number in range(arguments.ports)
        )
        count = arguments.checks // (arguments.hosts * arguments.ports)
        return "".join(
            f"""
[services.web{number}]
address = "203.0.113.{number + 1}"
ports = [80]
directors = ["lb"]
servers = [{servers}]
check = {{ kind = "{kind}", every = {arguments.every}, timeout = {TIMEOUT}, retries = 1 }}
"""
            for number in range(count)
        )

    def measure(self, results: Figures, title: str) -> None:
        """Record the cost of the checks once all have begun."""
        arguments = self._arguments
        time.sleep(2 * arguments.every + 4 * TIMEOUT)  # all have ended, and those that hang are down
        agent, forwarder = self._director.process.pid, self._director.status()["forwarder_pid"]
        for _ in range(arguments.rounds):
            before = cpu_seconds(agent), cpu_seconds(forwarder), self._begun()
            began = time.monotonic()
            time.sleep(arguments.seconds)
            took = time.monotonic() - began
            after = cpu_seconds(agent), cpu_seconds(forwarder), self._begun()
            spent = [(late - early) / took for early, late in zip(before, after, strict=True)]
            results.note("share of a core, agent", title, spent[0])
            results.note("share of a core, forwarder", title, spent[1])
            results.note("share of a core, both", title, spent[0] + spent[1])
            results.note("checks a second", title, spent[2])
            results.note("us of each check", title, (spent[0] + spent[1]) / spent[2] * 1e6)
        self._network.close()

    def _begun(self) -> int:
        """Return how many TCP connections the director has begun (RFC 4022: tcpActiveOpens)."""
        lines = self._director.namespace.run("cat", "/proc/net/snmp").splitlines()
        names, numbers = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(numbers[names.index("ActiveOpens")])
