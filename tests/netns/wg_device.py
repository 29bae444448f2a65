"""A device of overlay-wg in a namespace, operated as users do it: with `wg` and `ip`."""

from __future__ import annotations

import itertools
import os
import socket
import sys
from typing import TYPE_CHECKING

from overlay.host.sockets.uapi_socket import DIRECTORY
from tests.netns.network import PATIENCE
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.topology import Namespace

PROGRAM = (sys.executable, "-m", "overlay.wg")
_numbers = itertools.count()


def new_name() -> str:
    """Return an interface name that no other test uses: `wg` does not know about namespaces."""
    return f"w{os.getpid()}x{next(_numbers)}"


def generate(namespace: Namespace) -> tuple[str, str]:
    """Return a private key and its public key."""
    private = namespace.run("wg", "genkey").strip()
    return private, namespace.run("wg", "pubkey", stdin=private).strip()


class Device:
    """An interface of overlay-wg that is up and has a key and addresses."""

    def __init__(
        self,
        namespace: Namespace,
        *addresses: str,
        port: int,
        program: tuple[str, ...] = PROGRAM,
        is_up: bool = True,
    ):
        self.namespace, self.name, self.port = namespace, new_name(), port
        self.private, self.public = generate(namespace)
        environment = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
        done = namespace.completed(*program, self.name, env=environment, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        namespace.lab.on_exit(self.remove)
        self.set("private-key", "/dev/stdin", "listen-port", str(port), stdin=self.private)
        for address in addresses:
            namespace.ip(f"address add {address} dev {self.name}")
        if is_up:
            namespace.ip(f"link set {self.name} up")

    def set(self, *arguments: str, stdin: str = "") -> None:
        """Run ``wg set``."""
        self.namespace.run("wg", "set", self.name, *arguments, stdin=stdin)

    def show(self, what: str) -> list[list[str]]:
        """Return the output of ``wg show`` as a list of words for each line."""
        return [line.split() for line in self.namespace.run("wg", "show", self.name, what).splitlines()]

    def shown(self, what: str) -> dict[str, list[str]]:
        """Return the fields of ``wg show`` for each peer, by its public key."""
        return {key: words for key, *words in self.show(what)}

    def speak(self, request: str) -> str:
        """Return the answer to a raw *request* of the interface, for what this `wg` cannot send."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(DIRECTORY / f"{self.name}.sock"))
            client.sendall(request.encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                answer += client.recv(1 << 16)
            return answer.decode()

    @property
    def path(self) -> Path:
        """The socket."""
        return DIRECTORY / f"{self.name}.sock"

    def remove(self) -> None:
        """Remove the interface, which ends the process, and check that it has ended."""
        self.namespace.completed("ip", "link", "delete", self.name)
        wait_until(lambda: not self.path.exists(), PATIENCE, f"{self.name} to end")
