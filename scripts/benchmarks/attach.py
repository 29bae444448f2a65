"""How long a container waits for its interface: the plugin from start to answer, `podman run` and `docker run`.

The plugin is the one that `overlay cni install` writes, called as a runtime calls it, for existing namespaces.  An
interpreter that does nothing is measured, too, as the lower bound.  podman and Docker, if installed, start a container
that pings its host once: on the overlay's network, and on their own bridge.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import figures
from scripts.benchmarks.attached import call, timed, write_plugin
from scripts.benchmarks.console import progress
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.measures import cpu_seconds
from scripts.benchmarks.options import between, some_of
from tests.netns.dockerd import PROGRAMS, SHELL, Dock
from tests.netns.network import Network
from tests.netns.podman import NAME, REFERENCE, ULIMITS, Podman
from tests.netns.podman import PROGRAMS as PODMANS
from tests.netns.topology import CommandError, Lab

if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Callable

    from tests.netns.network import Host

PARTS = ("plugin", "podman", "docker")
ADDRESS = "10.244.255.1"  # of the host, which its containers ping
WALL, PROCESSOR = "{}, ms from start to answer", "{}, ms of processor time"
FIRST_PING = "{} run to the first ping, s"
AGENT, BRIDGE = "overlay", "its own bridge"
EMPTY = "an interpreter that does nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this measurement."""
    add = parser.add_argument
    add(
        "--parts",
        type=some_of(PARTS),
        default=PARTS,
        help=f"of: {', '.join(PARTS)}; default all that are possible",
    )
    add("--count", type=between(1, 1000), default=50, help="calls of the plugin (default 50)")
    add("--rounds", type=between(1, 100), default=7, help="containers for each network (default 7)")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measure and report."""
    found = Figures(EMPTY, second_reference=BRIDGE)
    for part in arguments.parts:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overlay-bench-")))
            network = Network(stack.enter_context(Lab()), folder, is_forked=False)
            stack.callback(network.close)
            PART_RUNS[part](network, arguments, found)
    found.show()
    figures.write(arguments.json, vars(arguments), {"values": found.values})


def measure_plugin(network: Network, arguments: argparse.Namespace, found: Figures) -> None:
    """Record the time that ADD and DEL take, and the agent's share of it."""
    host = _host(network)
    plugin = write_plugin(network.directory)
    agent, used = host.status()["pid"], list[float]()
    for number in range(arguments.count):
        container = network.lab.namespace(network.namespace_name(f"c{number}"))
        path = f"/run/netns/{container.full_name}"
        _, _, nothing = timed([sys.executable, "-IS", "-c", "pass"], {}, b"")
        before = cpu_seconds(agent)
        _, added = call(host.namespace, plugin, "ADD", f"c{number}", path)
        used.append(cpu_seconds(agent) - before)
        _, deleted = call(host.namespace, plugin, "DEL", f"c{number}", path)
        for name, took in ((EMPTY, nothing), ("ADD", added), ("DEL", deleted)):
            found.note(WALL.format("the plugin"), name, took.wall * 1000)
            found.note(PROCESSOR.format("the plugin"), name, took.processor * 1000)
    # In steps of hundredths of a second, as the kernel counts
    found.note(PROCESSOR.format("the agent"), "ADD (mean)", statistics.mean(used) * 1000)


def measure_podman(network: Network, arguments: argparse.Namespace, found: Figures) -> None:
    """Record how long `podman run` takes until the first ping, by CNI and by podman's own bridge."""
    missing = [each for each in PODMANS if not _is_there(each)]
    if missing or not (REFERENCE / "bridge").exists():
        what = missing[0] if missing else "containernetworking-plugins"
        progress(f"podman is left out: {what} is not installed")
        return
    podman = Podman(_host(network))
    reason = podman.hindrance()
    if reason is not None:
        progress(f"podman is left out: {reason}")
        return
    podman.install()
    rootfs = str(podman.folder / "rootfs")

    def ping(name: str) -> subprocess.CompletedProcess[str]:
        command = ("busybox", "ping", "-c1", "-W5", ADDRESS)
        return podman.run("run", "--rm", *ULIMITS, f"--network={name}", "--rootfs", rootfs, *command)

    _compare("podman", lambda: ping(NAME), lambda: ping("podman"), arguments.rounds, found)


def measure_docker(network: Network, arguments: argparse.Namespace, found: Figures) -> None:
    """Record how long `docker run` takes until the first ping, by the agent's driver and by Docker's own bridge."""
    missing = [each for each in (*PROGRAMS, SHELL) if not _is_there(str(each))]
    if missing:
        progress(f"docker is left out: {missing[0]} is not installed (Debian: docker.io, busybox-static)")
        return
    dock = Dock(network, "paris")
    dock.host.namespace.sysctl("net.ipv4.ip_forward=1")
    dock.host.namespace.run("ip", "link", "set", "lo", "up")
    dock.start()
    dock.daemon.start()
    dock.daemon.load_image()
    dock.create()
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

    def ping(name: str) -> subprocess.CompletedProcess[str]:
        command = ("ping", "-c1", "-W5", dock.host.outside)
        return dock.daemon.completed("run", "--rm", *limits, f"--network={name}", "box", *command)

    _compare("docker", lambda: ping("net"), lambda: ping("bridge"), arguments.rounds, found)


PART_RUNS: dict[str, Callable[[Network, argparse.Namespace, Figures], None]] = {
    "plugin": measure_plugin,
    "podman": measure_podman,
    "docker": measure_docker,
}


def _host(network: Network) -> Host:
    """Return a host that forwards, with a running agent."""
    host = network.host("paris", address=ADDRESS)
    host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.namespace.run("ip", "link", "set", "lo", "up")
    network.start()
    return host


def _compare(
    program: str,
    by_agent: Callable[[], subprocess.CompletedProcess[str]],
    by_bridge: Callable[[], subprocess.CompletedProcess[str]],
    rounds: int,
    found: Figures,
) -> None:
    """Record how long both take, in turns; the first of each does not count, because it makes bridges and loads
    programs.
    """
    for number in range(rounds + 1):
        for name, start in ((AGENT, by_agent), (BRIDGE, by_bridge)):
            began = time.monotonic()
            done = start()
            took = time.monotonic() - began
            if done.returncode != 0:
                raise CommandError(f"{program} by {name}: {done.stderr}{done.stdout}")
            if number:
                found.note(FIRST_PING.format(program), name, took)


def _is_there(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is not None
