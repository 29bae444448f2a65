"""Containers that the agent of a host attaches, requested as by a container runtime: with the plugin overlay-cni."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overlay.cli.cni import network
from tests.netns.topology import CommandError

if TYPE_CHECKING:
    import resource
    from pathlib import Path

    from scripts.benchmarks.nodes import Pair
    from tests.netns.topology import Lab, Namespace

NETWORK = {"cniVersion": "1.0.0", "name": "bench", "type": network.PLUGIN}


@dataclass(frozen=True)
class Took:
    """The duration of one call of a program and its processor time, in seconds."""

    wall: float
    processor: float


def write_plugin(folder: Path) -> Path:
    """Write the plugin as `overlay cni install` does, and return its path."""
    path = folder / network.PLUGIN
    path.write_text(network.launcher())
    path.chmod(0o755)
    return path


def call(host: Namespace, plugin: Path, command: str, name: str, path: str) -> tuple[dict[str, Any], Took]:
    """Run *command* of *plugin* for the container *name* with the namespace at *path*; return its answer.

    Raises CommandError.  The times are those of the plugin alone: it is started by a process that is already in the
    namespace of *host*.
    """
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugin.parent),
    }
    with host.entered():
        status, said, took = timed([str(plugin)], environment, json.dumps(NETWORK).encode())
    if status:
        raise CommandError(f"{command} of {name}: {said.decode(errors='replace')}")
    return json.loads(said) if said else {}, took


def timed(command: list[str], environment: dict[str, str], stdin: bytes) -> tuple[int, bytes, Took]:
    """Run *command* and return its exit code, its output, and its times."""
    began = time.perf_counter()
    into, out = os.pipe(), os.pipe()
    os.write(into[1], stdin)
    os.close(into[1])
    actions = [(os.POSIX_SPAWN_DUP2, into[0], 0), (os.POSIX_SPAWN_DUP2, out[1], 1)]
    pid = os.posix_spawn(command[0], command, {**os.environ, **environment}, file_actions=actions)
    os.close(into[0])
    os.close(out[1])
    with open(out[0], "rb") as pipe:
        said = pipe.read()
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), said, Took(time.perf_counter() - began, _seconds(used))


def _seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def attach_both(lab: Lab, pair: Pair, folder: Path) -> None:
    """Give both nodes of *pair* a container that their agent attaches."""
    plugin = write_plugin(folder)
    (one, _), (other, address) = (attach(lab, node.host, plugin, f"{node.host.name}x") for node in pair.nodes)
    pair.attached = one, other, address


def attach(lab: Lab, host: Namespace, plugin: Path, name: str) -> tuple[Namespace, str]:
    """Return a container that the agent of *host* has attached, and its IPv4 address."""
    made = lab.namespace(name)
    made.run("ip", "link", "set", "lo", "up")
    found, _ = call(host, plugin, "ADD", name, f"/run/netns/{made.full_name}")
    return made, found["ips"][0]["address"].partition("/")[0]
