"""A thousand hosts on one etcd: how soon a join is seen everywhere, the effect of a restart, and the cost of idling.

The hosts are the stores of real agents, without tun devices and packets, in as many processes as there are processors;
etcd is Debian's etcd-server, on the same machine.  Then one more host joins, several times; nothing happens for a
while; etcd is stopped and started again.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from peers.stores.etcd.administration import Administration
from peers.stores.etcd.location import EtcdLocation
from peers.stores.etcd.store import EtcdStore
from peers.stores.membership import Member, OwnKeys
from scripts.benchmarks.console import fail, say
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.options import between
from tests.etcd.real import RealEtcd, is_installed

if TYPE_CHECKING:
    import argparse

DOCUMENT = '[network]\nprefix = "10.64.0.0/10"\n'
READERS = 2  # hosts of each process that read the table like an agent, which takes a tenth of a second of a processor
JOINS = 5
AWAY = 2.0  # seconds between stop and start of etcd
AFTERWARDS = 10.0  # seconds over which the cost of a restart for etcd is measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    parser.add_argument("--agents", type=between(10, 5000), default=1000, help="hosts (default 1000)")
    parser.add_argument(
        "--processes",
        type=between(1, 16),
        default=os.cpu_count() or 2,
        help="default: one for each processor",
    )
    parser.add_argument(
        "--quiet", type=between(5, 600), default=60, help="seconds without a change (default 60)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")


class Crowd:
    """A process with many hosts."""

    def __init__(self, url: str, first: int, count: int, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.members"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell(
            json.dumps(
                {"url": url, "first": first, "count": count, "readers": READERS, "directory": str(directory)}
            )
        )

    def tell(self, line: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the answer."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    if not is_installed():
        fail("etcd is not installed; install etcd-server")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        etcd = RealEtcd(directory)
        stack.callback(etcd.stop)
        etcd.start()
        figures = _measure(arguments, etcd, directory, stack)
    for name, value in figures.items():
        say(f"{name:<60} {value:>10.2f}" if isinstance(value, float) else f"{name:<60} {value:>10}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def _measure(
    arguments: argparse.Namespace, etcd: RealEtcd, directory: Path, stack: ExitStack
) -> dict[str, Any]:
    url = f"etcd://{etcd.url}/bench"
    Administration(EtcdLocation.parse("etcd", url.removeprefix("etcd:"))).create(DOCUMENT, None)
    count, processes = arguments.agents, arguments.processes
    shares = [count // processes + (number < count % processes) for number in range(processes)]
    before = cpu_seconds(etcd.process.pid)
    crowds = []
    for number, share in enumerate(shares):
        crowds.append(Crowd(url, sum(shares[:number]), share, directory))
        stack.callback(crowds[-1].end)
    for crowd in crowds:
        crowd.hear()
    figures: dict[str, Any] = {"hosts": count}
    figures["processor time of etcd while all join, s"] = cpu_seconds(etcd.process.pid) - before
    time.sleep(25)  # for hosts that are still reading
    _ask(crowds, "heard")
    told, read = [], []
    for number in range(JOINS):
        at, answers = _join(url, f"late{number}", directory, crowds)
        told.append(max(answer["told"] for answer in answers) - at)
        read.append(max(answer["read"] for answer in answers) - at)
        time.sleep(3)
    figures["a join reaches every host, s (median)"] = sorted(told)[JOINS // 2]
    figures["  at most"] = max(told)
    figures[f"and in the table of {READERS * processes} that read it once a second, s (median)"] = sorted(
        read
    )[JOINS // 2]
    figures["  at most "] = max(read)
    before, began = cpu_seconds(etcd.process.pid), time.time()
    time.sleep(arguments.quiet)
    figures["steady state: processors that etcd uses"] = (cpu_seconds(etcd.process.pid) - before) / (
        time.time() - began
    )
    figures["memory of etcd, MiB"] = _memory(etcd.process.pid)
    _ask(crowds, "heard")
    etcd.stop()
    time.sleep(AWAY)
    etcd.start()
    began = time.time()
    answers = _ask(crowds, "heard")
    figures["etcd is back: all follow it again after, s"] = max(answer["heard"] for answer in answers) - began
    time.sleep(max(0.0, AFTERWARDS - (time.time() - began)))
    figures["  requests to list everything"] = sum(answer["listings"] for answer in answers)
    figures[f"  processor time of etcd in its first {AFTERWARDS:g} s"] = cpu_seconds(etcd.process.pid)
    at, answers = _join(url, "last", directory, crowds)
    figures["  and a join reaches every host, s"] = max(answer["told"] for answer in answers) - at
    return figures


def _ask(crowds: list[Crowd], command: str) -> list[dict[str, Any]]:
    for crowd in crowds:
        crowd.tell(command)
    return [crowd.hear() for crowd in crowds]


def _join(url: str, name: str, directory: Path, crowds: list[Crowd]) -> tuple[float, list[dict[str, Any]]]:
    """Make a host join and leave; return when its start began, and the reports of the crowds about it."""
    for crowd in crowds:
        crowd.tell(f"sees {name}")

    async def main() -> tuple[float, list[dict[str, Any]]]:
        store = EtcdStore(EtcdLocation.parse("etcd", url.removeprefix("etcd:")))
        member = Member(
            name,
            OwnKeys(hashlib.sha256(name.encode()).digest()),
            directory / name,
            directory / "private.key",
            directory / "private.key.new",
            lambda _: None,
            "192.0.2.1",
        )
        at = time.time()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.attend, member)
            await store.joined(say)
            answers = await trio.to_thread.run_sync(lambda: [crowd.hear() for crowd in crowds])
            await store.leave()
            nursery.cancel_scope.cancel()
        return at, answers

    return trio.run(main)


def _memory(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
