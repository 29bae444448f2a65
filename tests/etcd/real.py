"""The real etcd, where Debian's is installed, on ports and in a directory of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time


def is_installed():
    return shutil.which("etcd") is not None


class RealEtcd:
    """A cluster of one.  It listens on *address*; *run* starts a process, elsewhere than here if need be."""

    def __init__(
        self, directory, address="127.0.0.1", port=None, run=subprocess.Popen, more=(), scheme="http"
    ):
        self.directory, self.address, self._run, self._more = directory, address, run, list(more)
        self.port = port or free_port()
        self.peer_port = free_port()
        self.scheme = scheme
        self.process = None
        self.log = directory / "etcd.log"

    @property
    def url(self):
        return f"{self.address}:{self.port}"

    def launch(self):
        client, peer = f"{self.scheme}://{self.address}:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            "etcd", "--name", "one", "--data-dir", str(self.directory / "data"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"one={peer}", "--unsafe-no-fsync", *self._more,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = self._run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        before = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        deadline = time.monotonic() + 60
        while b"serving" not in (said := self.log.read_bytes()[before:]) or b"client requests" not in said:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "etcd does not answer"
            time.sleep(0.05)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def kill(self):
        self.process.kill()
        self.process.wait(30)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
