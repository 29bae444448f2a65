"""Hosts that join a network in a real etcd, each with one command."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.etcd.real import RealEtcd, is_installed
from tests.netns.network import COMMAND, Host, Network
from tests.netns.topology import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.topology import Lab

ETCD = "192.0.2.200"
PATIENCE = 60.0


class EtcdNetwork(Network):
    """An underlay with an etcd on a separate host, and the network ``office`` in it."""

    def __init__(self, lab: Lab, directory: Path, document: str | None = None, address: str = ETCD) -> None:
        if not is_installed() or not shutil.which("etcdctl"):
            pytest.skip("etcd and etcdctl are not both installed (Debian: etcd-server, etcd-client)")
        super().__init__(lab, directory)
        self.store = lab.namespace(self.namespace_name("etcd"))
        lab.plug(self.underlay, self.store.end("eth0", f"{ETCD}/24"), self.mtu)
        if address != ETCD:
            self.store.ip("link set lo up", f"address add {address}/32 dev lo")
        place = directory / "etcd"
        place.mkdir()

        def run(command: list[str], **options: Any) -> Any:
            return self.store.popen(*command, **options)

        self.etcd = RealEtcd(place, address, 2379, run)
        lab.on_exit(self.etcd.stop)
        self.etcd.start()
        self.url = f"etcd://{address}:2379/office"
        if document is not None:
            self.put("config", document)

    def joining(self, name: str) -> Joining:
        """Return a new host that can join."""
        return self._plug(Joining(self, name, len(self.peers) + 1, "overlay0", {}))

    def put(self, key: str, value: str) -> None:
        """Write a key of the network, as etcdctl does."""
        self.etcdctl("put", f"/overlay/office/{key}", value)

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl beside etcd."""
        environment = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}
        command = ["etcdctl", "--endpoints", f"http://{self.etcd.url}", *arguments]
        return str(
            self.store.run("env", *(f"{name}={value}" for name, value in environment.items()), *command)
        )


class Joining(Host):
    """A host that joins by ``overlay up --peers etcd://...``."""

    @property
    def environment(self) -> dict[str, str]:
        """The directory of its state."""
        return {"STATE_DIRECTORY": str(self.directory / "state")}

    def launch(self, *options: str, **_: Any) -> None:
        """Start the agent; return at once."""
        network = self.network
        assert isinstance(network, EtcdNetwork)
        up = [
            "overlay",
            "up",
            "--peers",
            network.url,
            "--key",
            str(self.key_path),
            "--interface",
            self.interface,
        ]
        self._launch(COMMAND, [*up, "--node", self.name, "--log-level", "debug", *options])

    def ask(self, *arguments: str) -> str:
        """Return the output of an overlay command on this host; fail if it fails."""
        done = self.overlay(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def subnets(self) -> list[str]:
        """The subnets that it holds."""
        return list(self.status()["store"]["subnets"])

    @property
    def joined_address(self) -> str:
        """Its address on the overlay."""
        return str(self.status()["addresses"][0])

    def sees(self) -> dict[str, list[str]]:
        """Return the other peers that it knows, and their subnets."""
        return {peer["name"]: peer["subnets"] for peer in self.status()["peers"]}

    def wait_to_see(self, *names: str) -> None:
        """Wait until the other peers are exactly these."""
        wait_until(
            lambda: set(self.sees()) == set(names), PATIENCE, f"{self.name} to see {json.dumps(names)}"
        )
