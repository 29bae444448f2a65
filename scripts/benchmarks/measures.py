"""One measurement each: throughput, round trips, processor time, memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from scripts.benchmarks.lab import Pair

HERTZ = os.sysconf("SC_CLK_TCK")


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
