"""What a receiver gains from more lanes: bulk units of one peer, opened and written into a tun by one lane or several.

Between two hosts on one machine both ends want the same cores, so more lanes gain nothing there.  Here a feeder for
each lane sends units that were sealed beforehand, never more than fit in the lane's socket, and shares the core with
its lane.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures
from scripts.benchmarks.console import progress
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.options import between, several
from tests.netns.topology import Lab

if TYPE_CHECKING:
    import argparse

RATE, CPU = "received, Gbit/s", "processor time of receiver and feeders, s/GB"
PATIENCE = 120.0  # seconds for one measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--rounds", type=between(1, 100), default=5, help="interleaved rounds (default 5)")
    most = max(2, os.cpu_count() or 1)
    add(
        "--lanes",
        type=several(between(1, 8)),
        default=[1, 2] if most < 4 else [1, 2, 4],
        metavar="N,...",
        help="numbers of lanes, each 1, 2, 4 or 8 (default: up to the number of cores)",
    )
    add("--units", type=between(100, 20_000), default=3000, help="for each lane (default 3000)")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    results = Figures(named(arguments.lanes[0]))
    with Lab() as lab:
        host = lab.namespace("lanes")
        for number in range(arguments.rounds):
            for lanes in arguments.lanes:
                progress(f"round {number + 1} of {arguments.rounds}: {named(lanes)}")
                command = (
                    sys.executable,
                    "-m",
                    "scripts.benchmarks.lane_receiver",
                    str(lanes),
                    str(arguments.units),
                )
                with host.popen(*command, stdout=subprocess.PIPE, text=True) as receiver:
                    told = json.loads(receiver.communicate(timeout=PATIENCE)[0])
                results.note(RATE, named(lanes), told["rate"])
                results.note(CPU, named(lanes), told["cpu"])
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def named(lanes: int) -> str:
    """Return a name for that number of lanes."""
    return "1 lane" if lanes == 1 else f"{lanes} lanes"
