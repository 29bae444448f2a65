"""The real etcd from Debian's package, on its own ports and in its own directory."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def is_installed() -> bool:
    """Return whether etcd is installed."""
    return shutil.which("etcd") is not None


class RealEtcd:
    """A cluster with one member that listens on *address*.  *run* starts its process, for example
    in another namespace.
    """

    process: subprocess.Popen[Any]

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        port: int | None = None,
        run: Callable[..., subprocess.Popen[Any]] = subprocess.Popen,
        more: Sequence[str] = (),
        scheme: str = "http",
    ) -> None:
        self.directory, self.address, self._run, self._more = directory, address, run, list(more)
        self.port = port or free_port()
        self.peer_port = free_port()
        self.scheme = scheme
        self.log = directory / "etcd.log"

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"{self.address}:{self.port}"

    def launch(self) -> None:
        """Start it, and return immediately."""
        client, peer = f"{self.scheme}://{self.address}:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            "etcd", "--name", "one", "--data-dir", str(self.directory / "data"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"one={peer}", "--unsafe-no-fsync", *self._more,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = self._run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it, and return once it accepts clients."""
        before = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        deadline = time.monotonic() + 60
        while b"serving" not in (said := self.log.read_bytes()[before:]) or b"client requests" not in said:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "etcd does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, if it runs."""
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(30)
