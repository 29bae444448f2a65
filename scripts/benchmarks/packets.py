"""Small packets: 64-byte UDP datagrams per second through one flow, and those that leave the sender for 50 peers.

**one**: one flow from host to host, or container to container, in comparison with the other contenders.  The datagrams
that arrive are counted.

**many**: 1000 flows to 50 peers, one packet of each in turn, so that consecutive packets are never for the same peer;
in comparison, one flow in the same place.  The peers are one process that only answers handshakes, and the sender's
datagrams are counted as they arrive there.

For a fair comparison, 64 bytes are those of the UDP payload (92 of the IP packet).  The sender offers more than any
contender carries.  Between hosts the tunnel's device holds up its socket; between containers it does not, and the
sender takes the same share of the processors from every contender.  The receiving kernel counts the datagrams and drops
them, so that no receiving program competes with the tunnels.  By default (``--sender single``) each datagram enters the
tunnel as a separate packet, whatever the tunnel's device supports; with ``--sender super`` they come in UDP
super-packets, which a device with USO accepts whole, and which the kernel cuts first for the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.crypto.keys import PrivateKey, encode_key
from scripts.benchmarks import figures
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.flood import HOWS
from scripts.benchmarks.lab import (
    CONTENDERS,
    Node,
    Underlay,
    make_node,
    set_up,
    start_ours,
    start_wireguard_go,
)
from scripts.benchmarks.measures import cpu_seconds
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.netns.topology import Namespace

SIZE = 64  # bytes of UDP payload
HEADERS = 28  # bytes of IPv4 and UDP header
OVERHEAD = 32  # bytes that WireGuard adds to an inner packet, which it fills to a multiple of 16
SEALED = -(-(SIZE + HEADERS) // 16) * 16 + OVERHEAD
PORT = 9  # discard
MARGIN = 0.75  # seconds of flood before the first count and after the last
PEERS, FLOWS = 50, 1000
FIRST_PORT, FIRST_SUBNET = 20_000, 100
ONE_FLOW = ("ours", "ours without bulk", "wireguard-go", "openvpn", "fastd")
MANY_FLOWS = ("ours", "wireguard-go")
REFERENCE = "wireguard-go"
PATTERNS = ("one", "many")

PEER_TOML = """
[peers.p{number}]
public_key = "{public_key}"
endpoint = "192.0.2.2:{port}"
subnets = ["10.244.{subnet}.0/24"]
"""
NETWORK_TOML = """
[network]
prefix = "10.244.0.0/16"

[peers.sender]
public_key = "{public_key}"
endpoint = "192.0.2.1"
subnets = ["10.244.1.0/24"]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="of each flood that are counted (default 2)")
    parser.add_argument("--patterns", default=",".join(PATTERNS), help="of: one, many")
    chosen = ",".join(name for name in ONE_FLOW if name in CONTENDERS)
    parser.add_argument("--contenders", default=chosen, help=f"of: {', '.join(CONTENDERS)}; default {chosen}")
    parser.add_argument("--places", default="hosts,containers", help="of: hosts, containers")
    parser.add_argument("--sender", choices=list(HOWS), default="single", help="how the sender sends")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--wireguard-go", default="wireguard-go", help="another build of it")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    check(arguments)
    results = Figures(REFERENCE)
    underlay = Underlay(wireguard_go=arguments.wireguard_go)
    for pattern, measure in (("one", measure_one), ("many", measure_many)):
        if pattern in arguments.patterns:
            with Lab() as lab, ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
                measure(lab, folder, underlay, arguments, results)
    results.show()
    say_goals(results, arguments.places)
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def check(arguments: argparse.Namespace) -> None:
    """Parse the lists among the options; raises SystemExit if one is wrong."""
    for option, known in (
        ("contenders", CONTENDERS),
        ("places", ("hosts", "containers")),
        ("patterns", PATTERNS),
    ):
        chosen = [name.strip() for name in getattr(arguments, option).split(",")]
        setattr(arguments, option, chosen)
        for name in chosen:
            if name not in known:
                fail(f"--{option}: there is no {name!r}; choose from {', '.join(known)}")
    if not 1 <= arguments.rounds <= 100 or not 0 < arguments.seconds <= 30:
        fail("--rounds must be 1 to 100, and --seconds at most 30")


# The flood


def flood(
    sender: Namespace,
    receiver: Namespace,
    targets: Sequence[tuple[str, int]],
    how: str,
    seconds: float,
    size: int,
    processes: Sequence[int],
) -> tuple[float, float, float]:
    """Return how much *sender* offers and *receiver* counts, in thousand datagrams per second.

    The third figure is the processor time of *processes* for each counted datagram, in microseconds.  *size* is the
    size of a datagram in the place where it is counted.
    """
    command = (sys.executable, "-m", "scripts.benchmarks.flood", str(seconds + 2 * MARGIN), str(SIZE), how)
    process = sender.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("".join(f"{address} {port}\n" for address, port in targets))
    process.stdin.close()
    process.stdin = None
    time.sleep(MARGIN)
    began, first, used = time.monotonic(), counted(receiver, size), sum(map(cpu_seconds, processes))
    time.sleep(seconds)
    arrived, used = counted(receiver, size) - first, sum(map(cpu_seconds, processes)) - used
    took = time.monotonic() - began
    offered = json.loads(process.communicate(timeout=30)[0])
    return (
        offered["sent"] / offered["seconds"] / 1000,
        arrived / took / 1000,
        used / arrived * 1e6 if arrived else 0.0,
    )


def count_and_drop(namespace: Namespace, rule: str) -> None:
    """Make the kernel of *namespace* count the packets that *rule* matches, and drop them."""
    namespace.run("nft", "add table inet bench")
    namespace.run("nft", "add counter inet bench seen")
    namespace.run("nft", "add chain inet bench arrivals { type filter hook prerouting priority -300; }")
    namespace.run("nft", f"add rule inet bench arrivals {rule} counter name seen drop")


def counted(namespace: Namespace, size: int) -> int:
    """Return how many datagrams of *size* bytes of payload were counted so far.

    The kernel counts a super-packet as one packet, with its headers once: the bytes show how many datagrams it has.
    """
    told = json.loads(namespace.run("nft", "-j", "list counter inet bench seen"))["nftables"]
    counter = next(item["counter"] for item in told if "counter" in item)
    return (int(counter["bytes"]) - HEADERS * int(counter["packets"])) // size


# One flow


def measure_one(
    lab: Lab, folder: Path, underlay: Underlay, arguments: argparse.Namespace, results: Figures
) -> None:
    """Let the contenders carry one flow, in turns."""
    pairs = []
    for number, name in enumerate(arguments.contenders):
        say(f"setting up {name}")
        pairs.append(set_up(lab, folder, f"c{number}", name, underlay))
    for pair in pairs:
        for place in arguments.places:
            _, receiver, address = pair.ends(place)
            count_and_drop(receiver, f"ip daddr {address} udp dport {PORT}")
    for number in range(arguments.rounds):
        for place in arguments.places:
            for pair in pairs:
                say(f"round {number + 1} of {arguments.rounds}, {place}, one flow: {pair.name}")
                sender, receiver, address = pair.ends(place)
                measured = flood(
                    sender,
                    receiver,
                    [(address, PORT)],
                    arguments.sender,
                    arguments.seconds,
                    SIZE,
                    pair.processes,
                )
                note(results, f"{place}, one flow", pair.name, measured)


def note(results: Figures, column: str, name: str, measured: tuple[float, float, float]) -> None:
    """Record the results of flood()."""
    offered, arrived, cost = measured
    results.note(f"{column}, thousand/s", name, arrived)
    results.note(f"{column}, offered, thousand/s", name, offered)
    results.note(f"{column}, CPU us each", name, cost)


# Many flows


@dataclass
class Crowd:
    """A sending node, and the namespace with all its peers."""

    name: str
    node: Node
    sink: Namespace


def measure_many(
    lab: Lab, folder: Path, underlay: Underlay, arguments: argparse.Namespace, results: Figures
) -> None:
    """Let ours and wireguard-go send to 50 peers, in turns."""
    crowds = []
    for number, name in enumerate(MANY_FLOWS):
        if name in arguments.contenders:
            say(f"setting up {name} with {PEERS} peers")
            crowds.append(set_up_crowd(lab, folder, f"m{number}", name, underlay))
    for number in range(arguments.rounds):
        for place in arguments.places:
            for crowd in crowds:
                sender = crowd.node.host if place == "hosts" else crowd.node.container
                for title, count in ((f"{FLOWS} flows", FLOWS), ("1 flow", 1)):
                    say(f"round {number + 1} of {arguments.rounds}, {place}, {title}: {crowd.name}")
                    measured = flood(
                        sender,
                        crowd.sink,
                        flows(count),
                        "single",
                        arguments.seconds,
                        SEALED,
                        crowd.node.processes,
                    )
                    note(results, f"{place}, {title} leaving", crowd.name, measured)


def flows(count: int) -> list[tuple[str, int]]:
    """Return the targets of *count* flows, those of different peers in turn."""
    return [(f"10.244.{FIRST_SUBNET + number % PEERS}.1", PORT + number // PEERS) for number in range(count)]


def set_up_crowd(lab: Lab, folder: Path, prefix: str, name: str, underlay: Underlay) -> Crowd:
    """Return *name* as a sender that has a session with each of PEERS peers."""
    node, sink = make_node(lab, f"{prefix}a", 1), lab.namespace(f"{prefix}s")
    lab.veth(node.host.end("eth0", "192.0.2.1/24"), sink.end("eth0", "192.0.2.2/24"), underlay.mtu)
    keys = [PrivateKey.generate(os.urandom) for _ in range(PEERS)]
    respond(sink, node.public_key, keys)
    last = FIRST_PORT + PEERS - 1
    # Transport messages and units; handshakes pass.
    count_and_drop(sink, f"udp dport {FIRST_PORT}-{last} @th,64,8 {{ 4, 5 }}")
    key_file = folder / f"{prefix}.key"
    if name == "ours":
        peers = folder / f"{prefix}.toml"
        peers.write_text(peers_toml(node, keys))
        start_ours(node, peers, key_file)
    else:
        nobody = Node(sink, sink, 2, "", encode_key(PrivateKey.generate(os.urandom).public))
        start_wireguard_go(node, nobody, key_file, underlay)
        interface = node.host.run("wg", "show", "interfaces").strip()
        for number, key in enumerate(keys):
            node.host.run(
                *("wg", "set", interface, "peer", encode_key(key.public)),
                *("endpoint", f"192.0.2.2:{FIRST_PORT + number}"),
                *("allowed-ips", f"10.244.{FIRST_SUBNET + number}.0/24"),
            )
    flood(node.host, sink, flows(PEERS), "single", 0.5, SEALED, [])  # to make the sessions
    return Crowd(name, node, sink)


def peers_toml(node: Node, keys: Sequence[PrivateKey]) -> str:
    """Return the peers file of the sender."""
    text = NETWORK_TOML.format(public_key=node.public_key)
    for number, key in enumerate(keys):
        text += PEER_TOML.format(
            number=number,
            public_key=encode_key(key.public),
            port=FIRST_PORT + number,
            subnet=FIRST_SUBNET + number,
        )
    return text


def respond(sink: Namespace, initiator: str, keys: Sequence[PrivateKey]) -> None:
    """Start the process that answers the handshakes."""
    process = sink.popen(
        *(sys.executable, "-m", "scripts.benchmarks.responder"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    peers = [(key.to_base64(), FIRST_PORT + number) for number, key in enumerate(keys)]
    process.stdin.write(json.dumps({"initiator": initiator, "address": "192.0.2.2", "peers": peers}))
    process.stdin.close()
    if process.stdout.readline() != "ready\n":
        raise AssertionError("the responder did not start")


# Reporting


def say_goals(results: Figures, places: Sequence[str]) -> None:
    """Print the goals for ratios, as far as both sides were measured."""
    say()
    for place in places:
        one = {name: results.median(f"{place}, one flow, thousand/s", name) for name in CONTENDERS}
        best = max((rate for name in ("openvpn", "fastd") if (rate := one.get(name))), default=None)
        say_ratio(f"{place}, one flow, ours to wireguard-go", one.get("ours"), one.get("wireguard-go"), 3.0)
        say_ratio(f"{place}, one flow, ours to the best of openvpn and fastd", one.get("ours"), best, 1.0)
        many, theirs, alone = (
            results.median(f"{place}, {title} leaving, thousand/s", name)
            for title, name in (
                (f"{FLOWS} flows", "ours"),
                (f"{FLOWS} flows", "wireguard-go"),
                ("1 flow", "ours"),
            )
        )
        say_ratio(f"{place}, {FLOWS} flows, ours to wireguard-go", many, theirs, 2.0)
        say_ratio(f"{place}, {FLOWS} flows to one flow, ours", many, alone, 0.6)


def say_ratio(what: str, ours: float | None, other: float | None, goal: float) -> None:
    if ours is not None and other:
        say(f"{what}: {ours / other:.2f} (goal: at least {goal})")
