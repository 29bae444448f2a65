"""The cost of observation: TCP from a host, alone, and during metrics, a capture, `top` and the page at the same time.

Prometheus is represented by a scrape each second, the page by its script's requests each second; `top` has its own
terminal.  The capture writes whole packets to /dev/null.  All of them run on the same cores as the two ends of the
stream.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from scripts.benchmarks import figures
from scripts.benchmarks.console import progress
from scripts.benchmarks.crowd import peers_toml
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.lab import Pair, make_node, start_ours
from scripts.benchmarks.measures import tcp, wait_for_ping
from scripts.benchmarks.options import between, some_of
from tests.netns.topology import Lab, wait_until

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from scripts.benchmarks.nodes import Node

PARTS = ("metrics", "capture", "top", "page")
ALONE, WATCHED = "alone", "watched"
RATE = "{place}: TCP, Gbit/s"
PLACES = ("hosts", "containers")
METRICS, PAGE = "127.0.0.1:9586", "127.0.0.1:8051"
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
OVERLAY = (sys.executable, "-m", "overlay")
# Requests each URL once a second until it is ended; the first line says that all were answered.
ASKING = """
import sys, time, urllib.request
while True:
    for url in sys.argv[1:]:
        with urllib.request.urlopen(url, timeout=20) as answer:
            answer.read()
    print("answered", flush=True)
    time.sleep(1)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--rounds", type=between(1, 100), default=5, help="interleaved rounds (default 5)")
    add("--seconds", type=between(1, 60), default=3, help="of each stream (default 3)")
    add("--parts", type=some_of(PARTS), default=PARTS, help=f"of: {', '.join(PARTS)}; default all")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    results = Figures(ALONE)
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        pair = _set_up(lab, Path(folder))
        for number in range(arguments.rounds):
            for name in (ALONE, WATCHED) if number % 2 else (WATCHED, ALONE):
                progress(f"round {number + 1} of {arguments.rounds}: {name}")
                with _watching(pair.a, arguments.parts if name == WATCHED else ()):
                    for place in PLACES:
                        rate, _ = tcp(pair, place, arguments.seconds)
                        results.note(RATE.format(place=place), name, rate)
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def _set_up(lab: Lab, folder: Path) -> Pair:
    a, b = (make_node(lab, name, number) for number, name in ((1, "a"), (2, "b")))
    lab.veth(a.host.end("eth0", "192.0.2.1/24"), b.host.end("eth0", "192.0.2.2/24"))
    peers = folder / "peers.toml"
    pair = Pair("ours", a, b)
    peers.write_text(peers_toml(pair, []).replace("[network]\n", f'[network]\nmetrics = "{METRICS}"\n', 1))
    for node in pair.nodes:
        start_ours(node, peers, folder / f"{node.number}.key")
    wait_for_ping(pair, "containers", 20)
    return pair


@contextlib.contextmanager
def _watching(node: Node, parts: Sequence[str]) -> Iterator[None]:
    """Watch *node* with *parts*."""
    with contextlib.ExitStack() as stack:

        def start(*command: str, **options: Any) -> subprocess.Popen[str]:
            process = node.host.popen(*command, **options)
            stack.callback(node.host.lab.end_process, process)
            return process

        if "capture" in parts:
            start(*OVERLAY, "capture", "-w", "/dev/null", **SILENT)
        if "top" in parts:
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            start(*OVERLAY, "top", env={"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}, **terminal)
            os.close(theirs)
            Thread(target=_read_out, args=(os.dup(ours),), daemon=True).start()
        urls = [f"http://{METRICS}/metrics"] if "metrics" in parts else []
        if "page" in parts:
            start(*OVERLAY, "web", "--listen", PAGE, **SILENT)
            wait_until(lambda: f"{PAGE} " in node.host.run("ss", "-Htln"), 20, "the page is there")
            urls += [f"http://{PAGE}/api/{name}" for name in ("status", "events")]
        if urls:
            asking = start(sys.executable, "-c", ASKING, *urls, stdout=subprocess.PIPE)
            assert asking.stdout is not None
            assert asking.stdout.readline() == "answered\n"
        time.sleep(2)  # until the terminal shows everything
        yield


def _read_out(descriptor: int) -> None:
    """Read the output of a program until it has ended."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 65_536):
            pass
    os.close(descriptor)
