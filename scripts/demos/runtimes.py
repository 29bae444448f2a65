"""The runtimes for the containers of a demo: podman if it is installed, otherwise the demo itself.

The demo calls the plugin like a runtime.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scripts.demos.screen import DemoError
from scripts.demos.stage import NAMESPACES, OVERLAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.demos.stage import Stage

NETWORK = "overlay"
REFERENCE = Path("/usr/lib/cni")
NEEDED = ("podman", "runc", "busybox", "nsenter")
# podman's defaults are more than some machines allow
ULIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Runtime(Protocol):
    """A container runtime on one host, with the network that `overlay cni install` has written for it."""

    name: str

    def start(self, container: str) -> str:
        """Start a container; return its IPv4 address."""

    def run(self, container: str, *command: str) -> str:
        """Return what *command* printed in a container.  Raises DemoError if it fails."""

    def entering(self, container: str) -> Sequence[str | Path]:
        """Return the words to put before a command so that it runs in a container."""


def runtime(stage: Stage, host: str, other: Runtime | None = None) -> Runtime:
    """Return the runtime of *host*, after `overlay cni install`: the kind that an *other* host has, if given."""
    if isinstance(other, Podman):
        return Podman(stage, host)
    if (
        other is None
        and all(shutil.which(program) for program in NEEDED)
        and (REFERENCE / "bridge").exists()
        and _has_cni(stage)
    ):
        podman = Podman(stage, host)
        if podman.works():
            return podman
    return Plugin(stage, host)


def _has_cni(stage: Stage) -> bool:
    """Return whether podman speaks CNI, as version 4 does."""
    try:
        return int(stage.run("podman", "version", "--format", "{{.Client.Version}}").partition(".")[0]) < 5
    except (DemoError, ValueError):
        return False


class Plugin:
    """Calls the plugin like a container runtime; its containers are network namespaces."""

    name = "the plugin, called as a runtime calls it"

    def __init__(self, stage: Stage, host: str) -> None:
        self._stage, self._host = stage, host
        self._folder = stage.folder / f"{host}-cni"
        _install(stage, host, self._folder)

    def start(self, container: str) -> str:
        """See Runtime."""
        self._stage.add_namespace(container)
        network = json.loads((self._folder / "net.d" / "10-overlay.conflist").read_text())
        asked = {**network["plugins"][0], "cniVersion": network["cniVersion"], "name": network["name"]}
        (self._folder / "asked.json").write_text(json.dumps(asked))
        setting = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(NAMESPACES / self._stage.full(container)),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._folder / "bin"),
        }
        plugin = (
            f"exec {shlex.quote(str(self._folder / 'bin' / 'overlay-cni'))} < "
            f"{shlex.quote(str(self._folder / 'asked.json'))}"
        )
        words = [f"{name}={value}" for name, value in setting.items()]
        result = json.loads(self._stage.inside(self._host, "env", *words, "sh", "-c", plugin))
        return str(result["ips"][0]["address"]).partition("/")[0]

    def run(self, container: str, *command: str) -> str:
        """See Runtime."""
        return self._stage.inside(container, *command)

    def entering(self, container: str) -> Sequence[str | Path]:
        """See Runtime."""
        return ("ip", "netns", "exec", self._stage.full(container))


class Podman:
    """podman, with its own folders for this demo."""

    name = "podman"

    def __init__(self, stage: Stage, host: str) -> None:
        self._stage = stage
        self._folder = stage.folder / f"{host}-cni"
        (self._folder / "bin").mkdir(parents=True)
        for plugin in REFERENCE.iterdir():
            (self._folder / "bin" / plugin.name).symlink_to(plugin)
        _install(stage, host, self._folder)
        self._rootfs = self._folder / "rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
            (self._rootfs / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", self._rootfs / "bin" / "busybox")
        for applet in ("sh", "ping", "sleep"):
            (self._rootfs / "bin" / applet).symlink_to("busybox")
        settings = self._folder / "containers.conf"
        settings.write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{self._folder / "bin"}"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n[containers]\nlog_driver = "k8s-file"\n'
        )
        self._podman = (
            *("nsenter", f"--net={NAMESPACES / stage.full(host)}"),  # `ip netns exec` hides the cgroups
            *("env", f"CONTAINERS_CONF={settings}", "podman", f"--root={self._folder / 'root'}"),
            *(
                f"--runroot={self._folder / 'run'}",
                "--storage-driver=vfs",
                f"--tmpdir={self._folder / 'tmp'}",
            ),
            f"--network-config-dir={self._folder / 'net.d'}",
        )
        stage.before_removal(*self._podman, "rm", "-af", "-t0")

    def works(self) -> bool:
        """Return whether podman can start containers on this machine at all."""
        try:
            self._stage.run(
                *(*self._podman, "run", "--rm", *ULIMITS, "--network=none"),
                *("--rootfs", self._rootfs, "busybox", "true"),
            )
        except DemoError:
            return False
        return True

    def start(self, container: str) -> str:
        """See Runtime."""
        self._stage.run(
            *(*self._podman, "run", "-d", *ULIMITS, "--name", container, f"--network={NETWORK}"),
            *("--rootfs", self._rootfs, "busybox", "sleep", "100000"),
        )
        networks = json.loads(self._stage.run(*self._podman, "inspect", container))[0]["NetworkSettings"]
        return str(networks["Networks"][NETWORK]["IPAddress"])

    def run(self, container: str, *command: str) -> str:
        """See Runtime."""
        return self._stage.run(*self._podman, "exec", container, *command)

    def entering(self, container: str) -> Sequence[str | Path]:
        """See Runtime."""
        return (*self._podman, "exec", container)


def _install(stage: Stage, host: str, folder: Path) -> None:
    """Run `overlay cni install` so that it writes plugin and network into *folder*."""
    folders = ("--conf-dir", str(folder / "net.d"), "--bin-dir", str(folder / "bin"))
    stage.inside(host, str(OVERLAY), "cni", "install", *folders)
