"""Virtual services: the cost of a director for a flow, new connections compared with proxies, memory, and failovers.

**path**: one TCP stream, and 64-byte datagrams of one flow and of a thousand, from a container behind a director to a
server at another host: to the virtual address, and to the server's own, which takes the same path without a service.

**connections**: new TCP connections per second, each with one request, from a client on the director's LAN, which the
server answers directly.  For comparison, on the same hosts: HAProxy in TCP mode, nginx with its stream module, and the
server without a balancer.  Client (wrk), server (nginx, one worker) and balancer share the processors; the tunnel to
the server is encrypted, the traffic of the proxies is not.

**flood**: a TCP stream through the director while a stranger on its LAN sends SYNs from forged sources as fast as a
core can.  For comparison, the same stream without a flood, and while the SYNs are sent to another address, where the
director's kernel drops them at once: stranger, director, server and stream share the processors here, so any flood
costs the stream its share.

**memory**: the memory of a director for each flow that it knows.

**failover**: for how long a client's datagrams do not arrive when its director is killed with ``kill -9``; for how long
new connections fail when a server is killed that is checked every half second; and for how long a drained server gets
new connections after the command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures, takeover
from scripts.benchmarks.console import fail, progress, say
from scripts.benchmarks.contenders import Program
from scripts.benchmarks.farm import VIP, Farm
from scripts.benchmarks.figures import Figures, machine
from scripts.benchmarks.measures import cpu_seconds, memory_mb, stream
from scripts.benchmarks.options import between, some_of
from scripts.benchmarks.packets import PORT, SIZE, count_and_drop, flood
from scripts.benchmarks.proxies import NGINX, PROXIES, WRK, requests, start_pages
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PARTS = ("path", "connections", "flood", "memory", "failover")
PLAIN, BALANCED, ALONE = "without a service", "by a director", "no balancer"
TCP, ONE, MANY = "TCP, Gbit/s", "one flow, thousand/s", "1000 flows, thousand/s"
CPU_EACH = {ONE: "one flow, CPU us each, both agents", MANY: "1000 flows, CPU us each, both agents"}
CONNECTIONS, CPU = "new connections/s", "CPU of a connection, both agents, us"
FLOWS = 1000  # of datagrams
GOALS = {TCP: 0.95, ONE: 0.8, MANY: 0.8}
GOAL_CONNECTIONS, GOAL_FLOOD = 0.5, 0.8
FLOOD, SYNS = "TCP during a flood, Gbit/s", "SYNs of a flood, thousand/s"
QUIET, FLOODED, ELSEWHERE = "no flood", "flood of SYNs", "flood elsewhere"
NOWHERE = "203.0.113.250"  # no service has it
DROPPING = f"""
table inet bench {{
    chain in {{
        type filter hook prerouting priority -300
        ip daddr {NOWHERE} drop
    }}
}}
"""
IPERF3 = Program("iperf3", "iperf3")

MANY_ADDRESSES = tuple(f"203.0.113.{last}" for last in range(100, 120))
PORTS = 50_000
SERVICES_TOML = f"""
[services.web]
address = "{VIP}"
protocol = ["tcp", "udp"]
directors = "lb"
servers = "web"

[services.many]
address = {list(MANY_ADDRESSES)}
protocol = "udp"
directors = "lb"
servers = "web"
scheduler = "wlc"
new_flows_per_second = 1000000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--rounds", type=between(1, 50), default=5, help="interleaved rounds (default 5)")
    add("--seconds", type=between(1, 30), default=2, help="of each transfer and flood (default 2)")
    add("--parts", type=some_of(PARTS), default=PARTS, help=f"of: {', '.join(PARTS)}; default all")
    add("--at-once", type=between(1, 1000), default=256, help="simultaneous connections (default 256)")
    add(
        "--flows",
        type=between(1000, 1_000_000),
        default=200_000,
        help="whose memory is measured (default 200000)",
    )
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    programs = needed(arguments.parts)
    results = Figures(PLAIN, second_reference=PROXIES[0].name)
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        if set(arguments.parts) - {"failover"}:
            progress("setting up a director and a server")
            farm = Farm(lab, folder, "s", ("lb", "web"), SERVICES_TOML)
            measure(farm, arguments, results)
        if "failover" in arguments.parts:
            takeover.measure(lab, folder, arguments.rounds, results)
    say()
    for name, value in {**machine(), **programs}.items():
        say(f"{name}: {value}")
    results.show()
    say_goals(results)
    figures.write(arguments.json, vars(arguments), {"versions": programs, "results": results.values})


def needed(parts: Sequence[str]) -> dict[str, str]:
    """Return the versions of the programs that *parts* need; raises SystemExit that names the missing ones."""
    wanted: list[Program] = []
    if "path" in parts or "flood" in parts:
        wanted.append(IPERF3)
    if "connections" in parts:
        wanted += [WRK, NGINX]
    missing = [program for program in wanted if not program.is_installed()]
    if missing:
        names = " ".join(program.package for program in missing)
        fail(f"missing: {names}; install them (apt-get install {names}), or choose other --parts")
    if "connections" in parts:
        wanted += [proxy.program for proxy in PROXIES if proxy.is_installed()]
        for proxy in PROXIES:
            if not proxy.is_installed():
                progress(
                    f"left out because not installed: {proxy.name} (apt-get install {proxy.program.package})"
                )
    return {program.package: program.version() for program in wanted}


def measure(farm: Farm, arguments: argparse.Namespace, results: Figures) -> None:
    """Measure path, connections and memory, in interleaved rounds."""
    web = farm.nodes["web"]
    parts = arguments.parts
    farm.lead_visitor("lb")
    if "flood" in parts:
        farm.lead_visitor("lb", NOWHERE)
        farm.nodes["lb"].host.run("nft", "-f", "-", stdin=DROPPING)
    if "connections" in parts:
        start_pages(web.host, farm.folder)
        for proxy in PROXIES:
            if proxy.is_installed():
                proxy.start(farm.nodes["lb"].host, farm.folder, "192.0.2.1", web.underlay_address)
    if "path" in parts or "memory" in parts:
        count_and_drop(web.host, 'iifname "overlay0" udp dport != 5201')
    for number in range(arguments.rounds):
        for part, each in (
            ("path", measure_path),
            ("connections", measure_connections),
            ("flood", measure_flood),
        ):
            if part in parts:
                progress(f"round {number + 1} of {arguments.rounds}: {part}")
                each(farm, arguments, results)
    if "memory" in parts:
        progress(f"memory of {arguments.flows} flows")
        measure_memory(farm, arguments.flows, results)


def measure_path(farm: Farm, arguments: argparse.Namespace, results: Figures) -> None:
    """Measure a stream and datagrams, to the server's address and to the virtual one."""
    director, server = farm.nodes["lb"], farm.nodes["web"]
    sender, receiver = director.container, server.host
    processes = [*director.processes, *server.processes]
    targets = {PLAIN: server.address, BALANCED: VIP}
    for name, address in targets.items():
        results.note(TCP, name, stream(sender, receiver, address, arguments.seconds)[0])
    for column, count in ((ONE, 1), (MANY, FLOWS)):
        for name, address in targets.items():
            flows = [(address, PORT + number) for number in range(count)]
            _, arrived, cost = flood(sender, receiver, flows, "single", arguments.seconds, SIZE, processes)
            results.note(column, name, arrived)
            results.note(CPU_EACH[column], name, cost)


def measure_connections(farm: Farm, arguments: argparse.Namespace, results: Figures) -> None:
    """Measure new connections through each balancer."""
    director, server = farm.nodes["lb"], farm.nodes["web"]
    ways = {ALONE: f"http://{server.underlay_address}/", BALANCED: f"http://{VIP}/"}
    for proxy in PROXIES:
        if proxy.is_installed():
            ways[proxy.name] = f"http://{director.underlay_address}:{proxy.port}/"
    processes = [*director.processes, *server.processes]
    for name, url in ways.items():
        used = sum(map(cpu_seconds, processes))
        rate, count = requests(farm.visitor, url, arguments.seconds, arguments.at_once)
        results.note(CONNECTIONS, name, rate)
        if name == BALANCED:
            spent = sum(map(cpu_seconds, processes)) - used
            results.note(CPU, name, spent / count * 1e6)


def measure_flood(farm: Farm, arguments: argparse.Namespace, results: Figures) -> None:
    """Measure a stream without a flood, during one, and during one to another address."""
    sender, receiver = farm.nodes["lb"].container, farm.nodes["web"].host
    results.note(FLOOD, QUIET, stream(sender, receiver, VIP, arguments.seconds)[0])
    for name, address in ((ELSEWHERE, NOWHERE), (FLOODED, VIP)):
        command = (sys.executable, "-m", "scripts.benchmarks.syns", address, "80", str(arguments.seconds + 2))
        flooding = farm.visitor.popen(*command, stdout=subprocess.PIPE)
        assert flooding.stdout is not None
        flooding.stdout.readline()
        try:
            results.note(FLOOD, name, stream(sender, receiver, VIP, arguments.seconds)[0])
        finally:
            told = json.loads(flooding.communicate(timeout=60)[0])
        results.note(SYNS, name, told["sent"] / told["seconds"] / 1000)


def measure_memory(farm: Farm, wanted: int, results: Figures) -> None:
    """Make the director learn that many flows, and record the memory of each."""
    director, receiver = farm.nodes["lb"], farm.nodes["web"].host
    count = -(-wanted // PORTS)
    before = sum(map(memory_mb, director.processes))
    for address in MANY_ADDRESSES[:count]:
        ports = range(1, min(PORTS, wanted) + 1)
        targets = [(address, port) for port in ports if port != 5201]
        known = flows_of(farm)
        for _ in range(10):  # some datagrams are lost
            flood(director.container, receiver, targets, "single", 0.5, SIZE, [])
            if flows_of(farm) - known >= 0.99 * len(targets):
                break
    flows = flows_of(farm)
    after = sum(map(memory_mb, director.processes))
    results.note("memory of a flow, bytes", f"of {flows}", (after - before) * 2**20 / flows)
    results.note("memory of a director, MB", "no flows", before)
    results.note("memory of a director, MB", f"{flows} flows", after)


def flows_of(farm: Farm) -> int:
    """Return how many flows the service of many addresses has."""
    return sum(each["active_flows"] + each["inactive_flows"] for each in farm.servers("lb", "many").values())


def say_goals(results: Figures) -> None:
    """Print the goals for ratios, as far as both sides were measured."""
    say()
    for column, goal in GOALS.items():
        ratio = results.ratio(column, BALANCED, PLAIN)
        if ratio is not None:
            say(f"{column}, by a director to without a service: {ratio:.2f} (goal: at least {goal})")
    quiet, elsewhere, flooded = (results.median(FLOOD, name) for name in (QUIET, ELSEWHERE, FLOODED))
    if quiet and elsewhere and flooded is not None:
        say(f"TCP, during a flood of SYNs to without: {flooded / quiet:.2f} (goal: at least {GOAL_FLOOD})")
        say(f"TCP, during a flood of SYNs to one that is dropped elsewhere: {flooded / elsewhere:.2f}")
    for proxy in PROXIES:
        ratio = results.ratio(CONNECTIONS, BALANCED, proxy.name)
        if ratio is not None:
            aim = f" (goal: at least {GOAL_CONNECTIONS})" if proxy is PROXIES[0] else ""
            say(f"{CONNECTIONS}, by a director to {proxy.name}: {ratio:.2f}{aim}")
