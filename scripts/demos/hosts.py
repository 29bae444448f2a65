"""Three hosts on one machine, the networks behind them, and an overlay that joins everything.

Paris, Tokyo and Berlin are network namespaces, joined by an underlay that is another one.  Behind each is a container,
behind Tokyo also a LAN.  Real agents connect them; then pings, a file and a host that moves show what an overlay does.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.demos.screen import DemoError
from scripts.demos.stage import OVERLAY

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.demos.stage import Stage

FILE_SIZE = 64 * 1024 * 1024
TRANSFER_PATIENCE = 60.0
PING_INTERVAL = 0.1
PINGS_BEFORE, PINGS_AFTER = 10, 15  # answers to be seen before and after the move

SEND_FILE = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection, open(sys.argv[2], "rb") as file:
        connection.sendfile(file)
"""
RECEIVE_FILE = """
import socket, sys, time
began = time.monotonic()
with socket.create_connection((sys.argv[1], 5000)) as connection, open(sys.argv[2], "wb") as file:
    while chunk := connection.recv(1 << 18):
        file.write(chunk)
print(time.monotonic() - began)
"""


@dataclass(frozen=True)
class Place:
    """A namespace with one address, behind a host."""

    name: str
    host: str
    address: str
    gateway: str


@dataclass(frozen=True)
class Host:
    """A host with its address on the underlay and the places behind it."""

    name: str
    underlay: str
    places: tuple[Place, ...]

    @property
    def subnets(self) -> list[str]:
        """The prefixes behind the host."""
        return [place.address.rpartition(".")[0] + ".0/24" for place in self.places]


def _container(host: str, number: int) -> Place:
    return Place(f"{host}-container", host, f"10.244.{number}.2", f"10.244.{number}.1")


PARIS = Host("paris", "192.0.2.11", (_container("paris", 1),))
TOKYO = Host(
    "tokyo",
    "192.0.2.12",
    (_container("tokyo", 2), Place("tokyo-lan", "tokyo", "192.168.77.10", "192.168.77.1")),
)
BERLIN = Host("berlin", "192.0.2.13", (_container("berlin", 3),))
HOSTS = (PARIS, TOKYO, BERLIN)
MOVED_TO = "192.0.2.77"  # Berlin's second address on the underlay

CLOSING = """\
What you saw: every container and the LAN reached each other through encrypted tunnels between the hosts, as one
network; the keys in peers.toml told each host which peer it is and what is behind the others; and when one of them
changed its address meanwhile, the others followed.
"""


class Demo:
    """The steps of the demo on a stage."""

    closing = CLOSING

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def run(self) -> None:
        """Take every step.  Raises DemoError at the first that fails."""
        step = self._stage.step
        with step("three hosts on an underlay, a container behind each, a LAN behind tokyo"):
            self._build()
        with step("a key for each host, one peers.toml for all, accepted by `overlay check`"):
            self._write_peers()
        with step("`overlay up --peers peers.toml` on each host") as notes:
            notes.append(f"all ready after {self._stage.start_agents(host.name for host in HOSTS):.2f} s")
        for source, target in _directions():
            with step(f"ping from {_described(source)} to {_described(target)}") as notes:
                notes.append(self._ping(source, target))
        with step("a file of 64 MiB over TCP from the container of paris to that of tokyo") as notes:
            notes.append(self._move_file())
        with step(
            f"berlin moves from {BERLIN.underlay} to {MOVED_TO} while its container pings that of paris"
        ) as notes:
            notes.append(self._move_host())
        self._stage.say("\n`overlay status` on paris:\n")
        self._stage.say(self._stage.inside("paris", str(OVERLAY), "status"))

    # The network

    def _build(self) -> None:
        self._stage.add_namespace("underlay")
        self._stage.add_bridge("underlay", "switch")
        for host in HOSTS:
            self._stage.add_namespace(host.name)
            self._stage.add_cable(host.name, "eth0", "underlay", host.name)
            self._stage.inside("underlay", "ip", "link", "set", host.name, "master", "switch")
            self._stage.inside(host.name, "ip", "address", "add", f"{host.underlay}/24", "dev", "eth0")
            self._stage.inside(host.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            for number, place in enumerate(host.places):
                bridge = f"bridge{number}"
                self._stage.add_namespace(place.name)
                self._stage.add_bridge(host.name, bridge)
                self._stage.add_cable(place.name, "eth0", host.name, f"port{number}")
                self._stage.inside(host.name, "ip", "link", "set", f"port{number}", "master", bridge)
                self._stage.inside(host.name, "ip", "address", "add", f"{place.gateway}/24", "dev", bridge)
                self._stage.inside(place.name, "ip", "address", "add", f"{place.address}/24", "dev", "eth0")
                self._stage.inside(place.name, "ip", "route", "add", "default", "via", place.gateway)

    def _write_peers(self) -> None:
        lines = ["[network]", 'prefix = "10.244.0.0/16"']
        for host in HOSTS:
            lines += [
                "",
                f"[peers.{host.name}]",
                f'public_key = "{self._stage.keygen(host.name)}"',
                f'endpoint = "{host.underlay}"',
                f"subnets = {json.dumps(host.subnets)}",
            ]
        self._stage.write_peers("\n".join(lines) + "\n", PARIS.name)

    # Steps

    def _ping(self, source: Place, target: Place) -> str:
        """Ping until two answers have come; return how long they took."""
        try:
            said = self._stage.inside(
                source.name, "ping", "-n", "-i", "0.2", "-c", "2", "-w", "10", target.address
            )
        except DemoError:
            raise DemoError(f"{_described(target)} did not answer within 10 s") from None
        times = [float(each) for each in re.findall(r"time=([\d.]+) ms", said)]
        return " and ".join(f"{each:.2f} ms" for each in times)

    def _move_file(self) -> str:
        """Send the file, compare the checksums and return the rate."""
        sent, received = self._stage.folder / "sent", self._stage.folder / "received"
        with sent.open("wb") as file:
            for _ in range(FILE_SIZE // 2**20):
                file.write(os.urandom(2**20))
        source, target = PARIS.places[0], TOKYO.places[0]
        sender = self._stage.start(
            source.name,
            *(sys.executable, "-c", SEND_FILE, source.address, sent),
            stdout=subprocess.PIPE,
        )
        assert sender.stdout is not None
        if sender.stdout.readline() != "listening\n":
            raise DemoError("the container of paris could not listen")
        took = float(
            self._stage.inside(
                *(target.name, sys.executable, "-c", RECEIVE_FILE, source.address, str(received)),
                timeout=TRANSFER_PATIENCE,
            )
        )
        self._stage.end(sender)
        sums = [_sha256(path) for path in (sent, received)]
        if sums[0] != sums[1]:
            raise DemoError(
                f"the received file differs from the sent one: sha256 {sums[1]} instead of {sums[0]}"
            )
        sent.unlink()
        received.unlink()
        return f"{FILE_SIZE / took / 2**20:.0f} MiB/s, the same sha256 at both ends"

    def _move_host(self) -> str:
        """Give Berlin another address while pings run; return the result."""
        answers = self._stage.folder / "pings"
        with answers.open("w") as file:
            ping = self._stage.start(
                BERLIN.places[0].name,
                *("ping", "-n", "-i", str(PING_INTERVAL), PARIS.places[0].address),
                stdout=file,
            )

        def answered() -> list[int]:
            return [int(each) for each in re.findall(r"bytes from .* icmp_seq=(\d+) ", answers.read_text())]

        self._stage.wait_for(
            lambda: len(answered()) >= PINGS_BEFORE, "the container of paris did not answer before the move"
        )
        last_before = max(answered())
        self._stage.inside(BERLIN.name, "ip", "address", "delete", f"{BERLIN.underlay}/24", "dev", "eth0")
        self._stage.inside(BERLIN.name, "ip", "address", "add", f"{MOVED_TO}/24", "dev", "eth0")
        self._stage.wait_for(
            lambda: sum(number > last_before for number in answered()) >= PINGS_AFTER,
            "pings from the moved host were not answered",
        )
        self._stage.end(ping)
        numbers = answered()
        self._stage.wait_for(
            lambda: self._endpoint("paris", "berlin").startswith(MOVED_TO), "paris did not notice the move"
        )
        lost = max(numbers) - len(set(numbers))
        return f"{lost} of {max(numbers)} pings lost, paris now reaches berlin at {self._endpoint('paris', 'berlin')}"

    def _endpoint(self, host: str, peer: str) -> str:
        rows = self._stage.ask(host, op="status")["status"]["peers"]
        return next(str(row["endpoint"]) for row in rows if row["name"] == peer)

    def doors(self) -> list[str]:
        """Return the namespaces that are worth a visit."""
        return [name for host in HOSTS for name in (host.name, *(place.name for place in host.places))]

    def questions(self) -> list[str]:
        """Return commands to try, each preceded by its namespace."""
        return [f"paris {OVERLAY} status", f"paris {OVERLAY} ping tokyo"]


def _directions() -> list[tuple[Place, Place]]:
    """Return the pairs that ping: every place behind a host, and every place behind the others."""
    places = [place for host in HOSTS for place in host.places]
    return [
        (source, target) for source, target in itertools.permutations(places, 2) if source.host != target.host
    ]


def _described(place: Place) -> str:
    return f"the {'LAN' if place.name.endswith('lan') else 'container'} of {place.host}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
