"""One measurement each: throughput, round trips, processor time, memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.congestion import controlled
from tests.netns.topology import PATIENCE, CommandError, wait_until

if TYPE_CHECKING:
    from scripts.benchmarks.nodes import Pair
    from tests.netns.topology import Namespace

IPERF3_PORT = 5201  # of the first
IPERF3_STREAMS = 128  # the most of one iperf3, according to its manual
HERTZ = os.sysconf("SC_CLK_TCK")


def tcp(
    pair: Pair,
    place: str,
    seconds: int,
    streams: int = 1,
    both_directions: bool = False,
    congestion: str | None = None,
) -> tuple[float, float]:
    """Return Gbit/s and GB of TCP from the first host or its container to the second, *streams* in sum.

    With *both_directions* as many go the other way at the same time, and count as well.  *congestion* is the congestion
    control of the streams from their first packet on, by default the machine's.
    """
    sender, receiver, address = pair.ends(place)
    return stream(sender, receiver, address, seconds, streams, both_directions, congestion)


def stream(
    sender: Namespace,
    receiver: Namespace,
    address: str,
    seconds: int,
    streams: int = 1,
    both_directions: bool = False,
    congestion: str | None = None,
) -> tuple[float, float]:
    """Return Gbit/s and GB of TCP from one namespace to an *address* that leads to another (see tcp).

    One iperf3 makes at most IPERF3_STREAMS streams, so more are shared among several, which run at the same time.
    """
    count = -(-streams // IPERF3_STREAMS)
    shares = [streams // count + (number < streams % count) for number in range(count)]
    with contextlib.ExitStack() as stack:
        if congestion:
            stack.enter_context(controlled(sender, receiver, address, congestion))
        servers, clients = [], []
        for port in range(IPERF3_PORT, IPERF3_PORT + count):
            server = receiver.popen("iperf3", "-s", "-1", "-p", str(port), stdout=subprocess.DEVNULL)
            stack.callback(_end, server)
            servers.append(server)
        for port, share in enumerate(shares, start=IPERF3_PORT):
            wait_until(partial(_listens, receiver, port), PATIENCE, f"iperf3 listens at port {port}")
            client = sender.popen(
                *("iperf3", "-J", "-c", address, "-p", str(port), "-t", str(seconds), "-P", str(share)),
                *("--connect-timeout", "30000", *(["--bidir"] if both_directions else [])),
                stdout=subprocess.PIPE,
            )
            stack.callback(_end, client)
            clients.append(client)
        received: list[dict[str, float]] = []
        for client in clients:
            output = json.loads(client.communicate(timeout=seconds + PATIENCE)[0])
            if client.returncode != 0:
                raise CommandError(f"iperf3: {output.get('error', 'it failed')}")
            received.append(output["end"]["sum_received"])
            if both_directions:
                received.append(output["end"]["sum_received_bidir_reverse"])
        for server in servers:
            server.wait(PATIENCE)
    bits = sum(each["bits_per_second"] for each in received)
    return bits / 1e9, sum(each["bytes"] for each in received) / 1e9


def _listens(namespace: Namespace, port: int) -> bool:
    return f":{port} " in namespace.run("ss", "-Htln")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def ping(pair: Pair, place: str, count: int) -> list[float]:
    """Return round trips in milliseconds; a single 0 if there are none."""
    sender, _, address = pair.ends(place)
    output = sender.run("ping", "-n", "-c", str(count), "-i", "0.005", "-W", "1", address, check=False)
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", output)] or [0.0]


def wait_for_ping(pair: Pair, place: str, seconds: int) -> None:
    """Return as soon as a ping is answered; fail if none is within *seconds*."""
    sender, _, address = pair.ends(place)
    # With a count and no deadline (-w), ping goes on when an ICMP error arrives.
    command = ("ping", "-n", "-i", "0.02", "-c", str(seconds * 50), "-W", "1", address)
    process = sender.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    answered = any(" time=" in line for line in process.stdout)  # ping ends by itself
    process.kill()
    process.wait()
    if not answered:
        raise CommandError(f"{pair.label}: no ping came back within {seconds} s")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def memory_mb(pid: int) -> float:
    """Return the proportional set size: pages shared with others count in part."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
