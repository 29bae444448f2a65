"""Debian's dockerd (package docker.io) on a host that is a namespace, with an image that consists of one program."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.network import Host, Network

PATIENCE = 60.0
PROGRAMS = ("dockerd", "docker", "containerd", "runc")
SHELL = Path("/bin/busybox")
STATE = Path("/var/lib/overlay")
APPLETS = ("sh", "sleep", "ping", "ip", "nc", "cat", "echo", "httpd", "wget")


def require() -> None:
    """Skip the test unless dockerd can run here."""
    missing = [
        each for each in PROGRAMS if shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (Debian: docker.io)")
    if not SHELL.exists():
        pytest.skip(f"{SHELL} is not installed (Debian: busybox-static)")


class Dockerd:
    """The daemon of *host*.  It shares the host's network and this machine's files, and has folders of its own."""

    def __init__(self, host: Host, *options: str) -> None:
        self.host, self.options = host, options
        self.folder = Path(tempfile.mkdtemp(prefix="dk", dir="/tmp"))  # sockets want short paths
        self.socket = self.folder / "exec" / "docker.sock"
        self.log_path = host.directory / "dockerd.log"
        host.network.lab.on_exit(self.close)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    # Not `ip netns exec`, which hides the cgroups.
                    *("nsenter", f"--net=/run/netns/{self.host.namespace.full_name}", "dockerd"),
                    *("--data-root", self.folder / "data", "--exec-root", self.folder / "exec"),
                    *("-H", f"unix://{self.socket}", "-p", self.folder / "docker.pid"),
                    *("--storage-driver", "vfs", "--userland-proxy=false"),
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self.process
        wait_until(lambda: self._answers() or process.poll() is not None, PATIENCE, "dockerd to answer")
        assert process.poll() is None, self.log

    def _answers(self) -> bool:
        try:
            return self.asked("/_ping") is not None
        except OSError:
            return False

    def asked(self, path: str) -> bytes | None:
        """Return the answer of its API, which costs less than the program ``docker``; None if it is an error."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(str(self.socket))
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == HTTPStatus.OK else None

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what ``docker inspect`` shows of a container."""
        said = self.asked(f"/containers/{container}/json")
        assert said is not None, f"there is no container {container}"
        shown: dict[str, Any] = json.loads(said)
        return shown

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def completed(
        self, *arguments: str, stdin: bytes = b"", timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Return the finished command of ``docker``."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "HOME": str(self.folder)},
        )
        return subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def docker(self, *arguments: str, **options: object) -> str:
        """Return the output of ``docker``; fail if it fails."""
        done = self.completed(*arguments, **options)  # type: ignore[arg-type]
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}\n{self.log[-3000:]}"
        return done.stdout.strip()

    def load_image(self, name: str = "box") -> None:
        """Ensure that the image of busybox exists."""
        self.docker("import", "-", name, stdin=_image())

    def run(self, *arguments: str, image: str = "box", command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """Start a container and return its id."""
        # Not all machines may raise the limits, and a `sleep` would have SIGTERM ignored for ten seconds.
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--stop-timeout", "0")
        return self.docker("run", "-d", *limits, *arguments, image, *command)

    def inside(self, container: str, *command: str) -> str:
        """Return the output of *command* in a container."""
        return self.docker("exec", container, *command)

    def clear(self) -> None:
        """Remove all containers, and the networks that tests made."""
        if names := self.completed("ps", "-aq").stdout.split():
            self.docker("rm", "-f", *names)
        if names := self.completed("network", "ls", "-q", "-f", "type=custom").stdout.split():
            self.docker("network", "rm", *names)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it; if it is killed, its containerd and their shims are killed, too."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                self.process.kill()
                self._end_others()
                for left in self.folder.glob(
                    "exec/containerd/*.pid"
                ):  # of a process that nobody here may reap
                    left.unlink()
            else:
                self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self.process = None

    def _others(self) -> Iterator[int]:
        """Yield its processes: all that name its folder in the command line."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                    yield int(path.parent.name)

    def _end_others(self) -> None:
        for pid in list(self._others()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop everything and remove what is left."""
        with contextlib.suppress(Exception):
            if self.process is not None and self.process.poll() is None:
                names = self.completed("ps", "-aq").stdout.split()
                if names:
                    self.completed("rm", "-f", *names)
        with contextlib.suppress(Exception):
            self.stop()
        self._end_others()
        with contextlib.suppress(Exception):
            wait_until(lambda: not list(self._others()))
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            where = line.split()[1]
            if where.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", where], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Dock:
    """A host with an agent and a dockerd, whose driver has the name of the agent's interface."""

    def __init__(self, network: Network, name: str, **settings: Any) -> None:
        self.driver = f"o{uuid.uuid4().hex[:6]}"
        self.host = network.host(name, interface=self.driver, address=None, **settings)
        network.lab.on_exit(self._forget)
        # One host has Docker's bridge and firewall next to the driver, the other has neither.
        self.has_bridge = self.host.number == 1
        options = () if self.has_bridge else ("--bridge=none", "--iptables=false")
        self.daemon = Dockerd(self.host, *options)

    def _forget(self) -> None:
        for path in (STATE / f"{self.driver}.docker.json", Path(f"/run/docker/plugins/{self.driver}.sock")):
            path.unlink(missing_ok=True)

    @property
    def subnet(self) -> str:
        return f"10.244.{self.host.number}.0/24"

    def start(self) -> None:
        self.host.start("--docker", "--masquerade", "--forward")

    def create(self, name: str = "net", *options: str) -> None:
        self.daemon.docker(
            "network",
            "create",
            "-d",
            self.driver,
            "--ipam-driver",
            self.driver,
            "--subnet",
            self.subnet,
            *options,
            name,
        )

    def address(self, container: str, network: str = "net") -> str:
        return str(self.daemon.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def devices(self) -> list[str]:
        """Return the host's ends of the containers' veth pairs."""
        lines = self.host.namespace.run("ip", "-o", "link", "show", "type", "veth").splitlines()
        return [name for line in lines if (name := line.split()[1]).startswith(("oc", "oi"))]

    def lent(self) -> list[str]:
        """Return the addresses that are in use; if there are none, there is no record."""
        path = self.host.control_path.with_suffix(".containers")
        return [row[0] for row in json.loads(path.read_text())["addresses"]] if path.exists() else []


def _image() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "tmp", "proc", "sys", "dev", "etc", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(SHELL, "bin/busybox")
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        text = b"here\n"
        entry = tarfile.TarInfo("www/index.html")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return packed.getvalue()
