"""Measure the overlay beside others: two hosts with containers behind them, in network namespaces of this machine.

    scripts/bench                                  # every contender, hosts and containers, 5 interleaved rounds
    scripts/bench --rounds 9 --contenders ours,wireguard-go --places containers --json bench.json

The machine is shared with everything else that runs on it, so figures are medians of rounds in which the contenders
take turns, and what counts is their ratio.  Everything it makes goes away with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from overlay.forwarding.table import Table
from tests.netns.topology import Lab, Namespace, wait_until

HERTZ = os.sysconf("SC_CLK_TCK")
REFERENCE = "wireguard-go"
CONTENDERS = (
    "ours",
    "ours without bulk",
    "ours to wireguard-go",
    "wireguard-go to ours",
    "wireguard-go",
    "no tunnel",
)
PEERS_TOML = """
[network]
prefix = "10.244.0.0/16"
bulk = {bulk}

[peers.a]
public_key = "{a}"
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24"]

[peers.b]
public_key = "{b}"
endpoint = "192.0.2.2"
subnets = ["10.244.2.0/24"]
"""


@dataclass
class Node:
    """One host: its namespace, its container, and the processes that carry its traffic."""

    host: Namespace
    container: Namespace
    number: int
    private_key: str
    public_key: str
    processes: list[int] = field(default_factory=list)
    ready_after: float | None = None  # seconds from start to "ready"

    @property
    def overlay_address(self) -> str:
        return f"10.244.{self.number}.0"


@dataclass
class Pair:
    """Two nodes joined by a contender."""

    name: str
    a: Node
    b: Node

    @property
    def processes(self) -> list[int]:
        return [*self.a.processes, *self.b.processes]

    def ends(self, place: str) -> tuple[Namespace, Namespace, str]:
        """Return who sends, who receives, and the receiver's address."""
        if place == "hosts":
            address = self.b.overlay_address if self.name != "no tunnel" else "192.0.2.2"
            return self.a.host, self.b.host, address
        return self.a.container, self.b.container, "10.244.2.2"


def main() -> None:
    arguments = parse_arguments()
    if arguments.lookup:
        for count in (10, 100_000):
            measure_lookup(count)
        return
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        pairs = []
        for number, name in enumerate(arguments.contenders):
            say(f"setting up {name}")
            pairs.append(set_up(lab, folder, f"c{number}", name, arguments))
        results: dict[str, dict[str, list[float]]] = {pair.name: {} for pair in pairs}
        for pair in pairs:
            ready = [node.ready_after for node in (pair.a, pair.b) if node.ready_after is not None]
            if ready:
                results[pair.name]["ready_s"] = ready
            results[pair.name]["first_ping_ms"] = [ping(pair, arguments.places[-1], 1)[0]]
        for number in range(arguments.rounds):
            for place in arguments.places:
                for pair in pairs:
                    say(f"round {number + 1} of {arguments.rounds}, {place}: {pair.name}")
                    measure(pair, place, arguments.seconds, results[pair.name])
        for pair in pairs:
            results[pair.name]["memory_mb"] = [sum(memory_mb(pid) for pid in pair.a.processes)]
        report(results, arguments)


def measure_lookup(count: int, rounds: int = 100_000) -> None:
    """Print what one look-up of a destination costs with *count* prefixes in the table."""
    table: Table[str] = Table()
    networks = [(10 << 24 | number << 7).to_bytes(4, "big") for number in range(count)]
    table.stage((network, 25, "peer") for network in networks)
    table.commit()
    addresses = [network[:3] + bytes([network[3] | 1]) for network in networks[:10]]
    for address in addresses:
        table.find(address)
    again = timeit.timeit(lambda: [table.remembered[address] for address in addresses], number=rounds // 10)
    first = timeit.timeit(lambda: [table.find(address) for address in addresses], number=rounds // 10)
    say(f"{count:7} prefixes: {again / rounds * 1e9:6.0f} ns for an address seen before, ", end="")
    say(f"{first / rounds * 1e9:6.0f} ns for another")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="of each TCP transfer (default 3)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"of: {', '.join(CONTENDERS)}")
    parser.add_argument("--places", default="hosts,containers", help="of: hosts, containers")
    parser.add_argument("--mtu", type=int, default=1500, help="of the underlay (default 1500)")
    parser.add_argument(
        "--loss",
        type=float,
        default=0.0,
        help="percent of the underlay's frames to drop; implies --no-offloads",
    )
    parser.add_argument("--no-offloads", action="store_true", help="datagrams of wire size on the underlay")
    parser.add_argument(
        "--lookup", action="store_true", help="measure the look-up of destinations, and nothing else"
    )
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--wireguard-go", default="wireguard-go", help="another build of it")
    arguments = parser.parse_args()
    arguments.contenders = [name.strip() for name in arguments.contenders.split(",")]
    arguments.places = [name.strip() for name in arguments.places.split(",")]
    for name in arguments.contenders:
        if name not in CONTENDERS:
            parser.error(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
    for place in arguments.places:
        if place not in {"hosts", "containers"}:
            parser.error(f"there is no place {place!r}; there are hosts, containers")
    if not 1 <= arguments.rounds <= 100 or not 1 <= arguments.seconds <= 60:
        parser.error("rounds are 1 to 100, seconds 1 to 60: the whole must end")
    if any("wireguard-go" in name for name in arguments.contenders) and not shutil.which(
        arguments.wireguard_go
    ):
        parser.error("wireguard-go is not installed: apt-get install wireguard-go, or choose --contenders")
    return arguments


# Setting up


def set_up(lab: Lab, folder: Path, prefix: str, name: str, arguments: argparse.Namespace) -> Pair:
    a, b = (make_node(lab, f"{prefix}{letter}", number) for number, letter in ((1, "a"), (2, "b")))
    lab.veth(
        a.host.end("eth0", "192.0.2.1/24"),
        b.host.end("eth0", "192.0.2.2/24"),
        arguments.mtu,
        not (arguments.no_offloads or arguments.loss),
    )
    if arguments.loss:
        for node in (a, b):
            lose(node.host, arguments.loss)
    pair = Pair(name, a, b)
    if name == "no tunnel":
        a.host.run("ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.2")
        b.host.run("ip", "route", "add", "10.244.1.0/24", "via", "192.0.2.1")
        return pair
    peers = folder / f"{prefix}.toml"
    peers.write_text(
        PEERS_TOML.format(
            a=a.public_key, b=b.public_key, bulk="false" if name == "ours without bulk" else "true"
        )
    )
    kinds = dict.fromkeys(("ours", "ours without bulk"), ("ours", "ours"))
    kinds["wireguard-go"] = ("wireguard-go", "wireguard-go")
    for node, other, kind in zip((a, b), (b, a), kinds.get(name, tuple(name.split(" to "))), strict=True):
        if kind == "ours":
            start_ours(node, peers, folder / f"{node.host.name}.key")
        else:
            start_wireguard_go(node, other, folder / f"{node.host.name}.key", arguments)
    wait_until(lambda: ping(pair, "containers", 1)[0] > 0, 20, f"{name} carries a ping")
    return pair


def make_node(lab: Lab, name: str, number: int) -> Node:
    host = lab.namespace(name)
    container = lab.container(host, f"{name}c", f"10.244.{number}.2/24", gateways=(f"10.244.{number}.1",))
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
    public = subprocess.run(
        ["wg", "pubkey"], check=True, capture_output=True, text=True, input=private
    ).stdout
    return Node(host, container, number, private.strip(), public.strip())


def lose(host: Namespace, percent: float) -> None:
    """Drop that share of the frames that arrive, each by itself: they have wire size."""
    rule = f"iifname eth0 numgen random mod 100000 < {round(percent * 1000)} drop"
    host.run("nft", "add table ip loss")
    host.run("nft", "add chain ip loss input { type filter hook prerouting priority -300; }")
    host.run("nft", f"add rule ip loss input {rule}")


def start_ours(node: Node, peers: Path, key: Path) -> None:
    key.touch(mode=0o600)
    key.write_text(node.private_key + "\n")
    began = time.monotonic()
    log = key.with_suffix(".log")
    with log.open("w") as out:
        command = (sys.executable, "-m", "overlay", "up", "--peers", peers, "--key", key)
        node.host.popen(*command, stderr=out)
    wait_until(lambda: " ready " in log.read_text(), 20, "the agent is ready")
    node.ready_after = time.monotonic() - began
    status = json.loads(node.host.run(sys.executable, "-m", "overlay", "status", "--json"))
    node.processes = [status["pid"], status["forwarder_pid"]]


def start_wireguard_go(node: Node, other: Node, key: Path, arguments: argparse.Namespace) -> None:
    key.touch(mode=0o600)
    key.write_text(node.private_key + "\n")
    interface = f"{node.host.full_name[-13:]}w".replace("-", "")
    process = node.host.popen(
        arguments.wireguard_go, "-f", interface, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    show = ("wg", "show", interface)
    wait_until(lambda: node.host.completed(*show).returncode == 0, 10, "wireguard-go answers")
    node.host.run(
        *("wg", "set", interface, "private-key", key, "listen-port", "51820"),
        *("peer", other.public_key, "endpoint", f"192.0.2.{other.number}:51820"),
        *("allowed-ips", f"10.244.{other.number}.0/24"),
    )
    node.host.run("ip", "address", "add", f"{node.overlay_address}/32", "dev", interface)
    node.host.run("ip", "link", "set", interface, "mtu", str(arguments.mtu - 80), "up")
    node.host.run("ip", "route", "add", "10.244.0.0/16", "dev", interface, "src", node.overlay_address)
    node.processes = [process.pid]


# Measuring


def measure(pair: Pair, place: str, seconds: int, results: dict[str, list[float]]) -> None:
    before = sum(cpu_seconds(pid) for pid in pair.processes)
    rate, volume = tcp(pair, place, seconds)
    used = sum(cpu_seconds(pid) for pid in pair.processes) - before
    results.setdefault(f"{place} tcp_gbit", []).append(rate)
    if pair.processes:
        results.setdefault(f"{place} cpu_s_per_gb", []).append(used / volume)
    times = sorted(ping(pair, place, 200))
    results.setdefault(f"{place} rtt_us", []).append(statistics.median(times) * 1000)
    results.setdefault(f"{place} rtt_p99_us", []).append(times[int(len(times) * 0.99) - 1] * 1000)


def tcp(pair: Pair, place: str, seconds: int) -> tuple[float, float]:
    """Return Gbit/s and GB of one TCP stream from the first host or its container to the second."""
    sender, receiver, address = pair.ends(place)
    server = receiver.popen("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    wait_until(lambda: ":5201 " in receiver.run("ss", "-Htln"), 10, "iperf3 listens")
    output = json.loads(sender.run("iperf3", "-J", "-c", address, "-t", str(seconds), timeout=seconds + 30))
    server.wait(10)
    received = output["end"]["sum_received"]
    return received["bits_per_second"] / 1e9, received["bytes"] / 1e9


def ping(pair: Pair, place: str, count: int) -> list[float]:
    """Return round trips in milliseconds; a single 0 for none."""
    sender, _, address = pair.ends(place)
    output = sender.run("ping", "-n", "-c", str(count), "-i", "0.005", "-W", "1", address, check=False)
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", output)] or [0.0]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def memory_mb(pid: int) -> float:
    """Return the proportional set size: pages shared with others count in part."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


# Reporting


def report(results: dict[str, dict[str, list[float]]], arguments: argparse.Namespace) -> None:
    machine = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("overlay", "cryptography", "numpy")},
        "wireguard-go": program_version([arguments.wireguard_go, "--version"]),
        "iperf3": program_version(["iperf3", "--version"]),
        "underlay": f"veth, MTU {arguments.mtu}, "
        f"{'wire-size frames' if arguments.no_offloads or arguments.loss else 'offloads on'}, {arguments.loss} % loss",
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    say()
    for name, value in machine.items():
        say(f"{name}: {value}")
    reference = results.get(REFERENCE, {})
    columns = sorted({column for measured in results.values() for column in measured})
    for column in columns:
        say(f"\n{column}{'':12}median      least       most   x {REFERENCE}")
        base = statistics.median(reference[column]) if reference.get(column) else None
        for name, measured in results.items():
            if column not in measured:
                continue
            values = measured[column]
            median = statistics.median(values)
            ratio = f"{median / base:10.2f}" if base else ""
            say(f"  {name:22} {median:10.3f} {min(values):10.3f} {max(values):10.3f} {ratio}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def program_version(command: list[str]) -> str:
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "absent"
    return str((done.stdout or done.stderr).partition("\n")[0])


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


if __name__ == "__main__":
    main()
