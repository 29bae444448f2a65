"""podman on a host that is a namespace, with CNI networks and a container that consists of one program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.netns.network import Host

PROGRAMS = ("podman", "runc", "busybox", "iptables")
REFERENCE = Path("/usr/lib/cni")
NAME = "overlay"
ULIMITS = (
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)  # podman's own are more than some machines allow


class Podman:
    """podman on one host, with folders of its own."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix="pod"))  # podman wants short paths
        self.plugins, self.networks = self.folder / "bin", self.folder / "net"
        for each in (self.plugins, self.networks, self.folder / "rootfs" / "bin"):
            each.mkdir(parents=True)
        for plugin in REFERENCE.iterdir():
            (self.plugins / plugin.name).symlink_to(plugin)
        for name in ("etc", "proc", "sys", "dev", "tmp", "run"):
            (self.folder / "rootfs" / name).mkdir()
        shutil.copy(shutil.which("busybox") or "busybox", self.folder / "rootfs" / "bin" / "busybox")
        for applet in ("sh", "ping", "httpd", "wget", "hostname", "sleep", "ip", "nc"):
            (self.folder / "rootfs" / "bin" / applet).symlink_to("busybox")
        (self.folder / "containers.conf").write_text(
            f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{self.plugins}"]\n'
            f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n[containers]\nlog_driver = "k8s-file"\n'
        )
        host.network.lab.on_exit(self.close)

    def run(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run podman, prefixed with *before*.  Not with `ip netns exec`, which hides the cgroups."""
        return subprocess.run(
            [
                *before, "nsenter", f"--net=/run/netns/{self.host.namespace.full_name}", "podman",
                f"--root={self.folder / 'root'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs",
                f"--network-config-dir={self.networks}", f"--tmpdir={self.folder / 'tmp'}", *arguments,
            ],
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run podman; return its output."""
        done = self.run(*arguments)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def hindrance(self) -> str | None:
        """Return why no container can be started here, whatever its network; None if one can."""
        rootfs = str(self.folder / "rootfs")
        done = self.run("run", "--rm", *ULIMITS, "--network=none", "--rootfs", rootfs, "busybox", "true")
        return None if done.returncode == 0 else (done.stderr.splitlines() or ["without a reason"])[-1]

    def install(self) -> None:
        done = self.host.overlay(
            "cni", "install", "--conf-dir", str(self.networks), "--bin-dir", str(self.plugins)
        )
        assert done.returncode == 0, done.stderr

    def start(self, name: str, *options: str, network: str = NAME) -> str:
        """Start a container that serves its name on port 80; return its address."""
        (self.folder / "rootfs" / "etc" / "index.html").write_text("here\n")
        self(
            "run", "-d", *ULIMITS, "--name", name, "--hostname", name, f"--network={network}", *options,
            "--rootfs", f"{self.folder / 'rootfs'}", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc",
        )  # fmt: skip
        return self.address(name)

    def address(self, name: str) -> str:
        found = json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"]
        return str(next(iter(found.values()))["IPAddress"])

    def exec(self, name: str, *command: str) -> str:
        return self("exec", name, *command)

    def remove_all(self) -> None:
        """Remove all containers, also those that a killed podman has half created."""
        for _ in range(2):
            self.run("rm", "-af", "-t0")
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
                subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self.remove_all()
        shutil.rmtree(self.folder, ignore_errors=True)
