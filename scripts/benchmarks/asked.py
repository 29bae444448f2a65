"""The cost of one request about all peers of a node that has many, and how long others wait meanwhile.

An agent has --peers peers in its table, with endpoints that do not answer.  It gets the requests of operators and their
programs: a scrape of its metrics, `status`, `doctor`, `wg show`, a `wg setconf` of all of them, and ten seconds of
`top` and of the page.  Meanwhile, small packets pass through a tunnel every 2 ms, and the control socket is asked for
one peer, one question after the other.  The results are the seconds until the answer, the processor time of agent and
forwarder, and the longest wait of both kinds.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from overlay.host import control
from scripts.benchmarks import crowd, figures
from scripts.benchmarks.console import progress, say
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.options import between, some_of
from scripts.benchmarks.pings import Pings, during
from scripts.benchmarks.reload import Waits
from tests.netns.topology import Lab, wait_until

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from scripts.benchmarks.crowd import CrowdedPair, Other

METRICS, PAGE = "127.0.0.1:9586", "127.0.0.1:8051"
NOWHERE = 0xC6120000  # 198.18.0.0 (RFC 2544): the endpoints, each with an address of its own
LOOK = 10.0  # seconds that `top` and the page are open
AFTER = 0.2  # seconds after a request in which others may still wait
IDLE = 3.0  # seconds without requests
PATIENCE = 300.0  # seconds for an answer
OVERLAY = (sys.executable, "-m", "overlay")
FETCH = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1], timeout=300).read()))"
# The requests of the page's script, and their interval: see overlay/doors/static.
LOOKING = """
import sys, time, urllib.request
ends, base = time.monotonic() + float(sys.argv[2]), sys.argv[1]
while time.monotonic() < ends:
    for path in ("status", "history?samples=2", "services", "events?limit=200", "doctor"):
        urllib.request.urlopen(f"{base}/api/{path}", timeout=300).read()
    time.sleep(1)
"""
QUESTIONS = ("nothing", "metrics", "status", "doctor", "wg show", "wg setconf", "top", "page")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add("--peers", type=between(10, 100_000), default=10_000, help="in the table (default 10000)")
    add("--subnets", type=between(1, 100), default=1, help="of each peer (default 1)")
    add("--rounds", type=between(1, 20), default=3, help="of each question (default 3)")
    add("--questions", type=some_of(QUESTIONS), default=QUESTIONS, help=f"of: {', '.join(QUESTIONS)}")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    results = Figures("nothing")
    with Lab() as lab, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
        say(f"setting up two overlay hosts with {arguments.peers} peers")
        others = list(crowd.others(arguments.peers - 2, arguments.subnets))
        placed = [replace(other, endpoint=_address(number)) for number, other in enumerate(others)]
        network = f'metrics = "{METRICS}"\n'
        pair = crowd.set_up(lab, folder, "q", "ours", placed, network)
        pair.a.host.run("ip", "route", "add", "blackhole", "198.18.0.0/15")
        asking = _asking(pair, folder, placed)
        for _ in range(arguments.rounds):
            for name in arguments.questions:
                progress(f"asking: {name}")
                with asking[name]() as ask:
                    _measure(pair, name, ask, results)
    results.show()
    figures.write(arguments.json, vars(arguments), {"results": results.values})


def _address(number: int) -> str:
    high, low = divmod(NOWHERE + number + 1, 1 << 16)
    return f"{high >> 8}.{high & 255}.{low >> 8}.{low & 255}"


def _measure(pair: CrowdedPair, name: str, ask: Callable[[], object], results: Figures) -> None:
    """Record the cost of *ask*, and how long others wait meanwhile."""
    path = control.DIRECTORY / f"overlay0.{pair.a.host.inode}.sock"
    agent, forwarder = pair.a.processes[:2]
    sender, _, address = pair.ends("containers")
    pings, waits = Pings(sender, address), Waits(lambda: control.request(path, {"op": "peer", "name": "b"}))
    time.sleep(1)
    waits.forget()
    used, began, at = [cpu_seconds(pid) for pid in (agent, forwarder)], time.time(), time.monotonic()
    ask()
    took, ended = time.monotonic() - at, time.time()
    time.sleep(AFTER)
    longest, _ = waits.stop()
    spent = [cpu_seconds(pid) - before for pid, before in zip((agent, forwarder), used, strict=True)]
    answers = during(pings.stop(), [(began, ended)])
    results.note("seconds", name, took)
    results.note("CPU seconds of the agent", name, spent[0])
    results.note("CPU seconds of the forwarder", name, spent[1])
    results.note("control socket, longest wait, seconds", name, longest)
    results.note("ping, longest round trip, ms", name, max(answers, default=0.0) / 1000)


# Questions


def _asking(
    pair: CrowdedPair, folder: Path, others: Sequence[Other]
) -> dict[str, Callable[[], contextlib.AbstractContextManager[Callable[[], object]]]]:
    """Return, by name, context managers that each yield a function that asks one question."""
    configuration = folder / "wg.conf"
    configuration.write_text(
        f"[Interface]\nListenPort = 51820\nPrivateKey = {pair.a.private_key}\n"
        + _section(pair.b.public_key, "192.0.2.2:51820", ["10.244.2.0/24"])
        + "".join(_section(each.public_key, f"{each.endpoint}:51820", each.subnets) for each in others)
    )
    host = pair.a.host

    def run_once(
        *command: str, check: bool = True
    ) -> contextlib.AbstractContextManager[Callable[[], object]]:
        return contextlib.nullcontext(lambda: host.run(*command, check=check, timeout=PATIENCE))

    return {
        "nothing": lambda: contextlib.nullcontext(lambda: time.sleep(IDLE)),
        "metrics": partial(run_once, sys.executable, "-c", FETCH, f"http://{METRICS}/metrics"),
        "status": partial(run_once, *OVERLAY, "status"),
        "doctor": partial(run_once, *OVERLAY, "doctor", check=False),  # it has findings
        "wg show": partial(run_once, "wg", "show", "overlay0", "dump"),
        "wg setconf": partial(run_once, "wg", "setconf", "overlay0", str(configuration)),
        "top": partial(_top, pair),
        "page": partial(_page, pair),
    }


def _section(public_key: str, endpoint: str, prefixes: Sequence[str]) -> str:
    return f"[Peer]\nPublicKey = {public_key}\nEndpoint = {endpoint}\nAllowedIPs = {', '.join(prefixes)}\n"


@contextlib.contextmanager
def _top(pair: CrowdedPair) -> Iterator[Callable[[], object]]:
    """Keep `overlay top` open."""
    host = pair.a.host
    ours, theirs = pty.openpty()
    process = host.popen(
        *(*OVERLAY, "top"),
        env={"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    Thread(target=_read_out, args=(ours,), daemon=True).start()
    try:
        yield lambda: time.sleep(LOOK)
    finally:
        host.lab.end_process(process)


def _read_out(descriptor: int) -> None:
    """Read a program's output until it has ended."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 65_536):
            pass
    os.close(descriptor)


@contextlib.contextmanager
def _page(pair: CrowdedPair) -> Iterator[Callable[[], object]]:
    """Run `overlay web`."""
    host = pair.a.host
    process = host.popen(
        *(*OVERLAY, "web", "--listen", PAGE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: f"{PAGE} " in host.run("ss", "-Htln"), 20, "the page is there")
        looking = (sys.executable, "-c", LOOKING, f"http://{PAGE}", str(LOOK))
        yield lambda: host.run(*looking, timeout=PATIENCE)
    finally:
        host.lab.end_process(process)
