"""Overlays for tests: hosts that run the agent, nodes that run wireguard-go, containers behind them, and an underlay.

    network = Network(lab, tmp_path)
    paris, tokyo = network.host("paris"), network.host("tokyo")
    web = paris.container("web")
    network.start()
    web.run("ping", "-c1", tokyo.address)

Host number n has 192.0.2.n and 2001:db8::n on the underlay, and 10.244.n.0/24 and fd00:244:n::/64 behind it.  The
underlay is a namespace of its own.  Each host has its own copy of the peers file, so that a test can change one host's
and leave the others'.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.host import control
from tests.netns.forks import server
from tests.netns.topology import CommandError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.netns.forks import Forked
    from tests.netns.topology import Lab, Namespace

N = TypeVar("N", bound="Node")

PYTHON = sys.executable
PORT = 51820
INTERFACE = "overlay0"
PATIENCE = 60.0  # seconds; this machine may be slow and busy, and no test measures time by it
# Drops that a busy machine causes: full queues, and answers to requests that have been repeated in the meantime
OVERLOAD = frozenset(
    {"staging_full", "send_full", "tun_full", "unit_incomplete", "probed_unexpected", "pong_unexpected"}
)
CONTROL = Path("/run/overlay")
WIREGUARD_SOCKETS = Path("/var/run/wireguard")
DEFAULT_PREFIXES = ("10.244.0.0/16", "fd00:244::/32")

# linux/errqueue.h, linux/in.h, linux/in6.h
IP_RECVERR, IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("=IBBBxII")  # errno, origin, type, code, info, data

COMMAND = "from overlay.__main__ import main; main()"

# An agent with other times: the product has no option for them.
LAUNCHER = """
import json, sys
from pathlib import Path
from overlay.config import Options
from overlay.lifecycle import run
from overlay.session.constants import Timing
from peers.stores import Location
peers, key, interface, times, *hooks = sys.argv[1:]
options = Options(Location.parse(peers), Path(key), interface, **{"hooks": Path(each) for each in hooks})
run(options, "debug", Timing(**json.loads(times)))
"""

# An agent whose first forwarders are another program.
OTHER_FORWARDER = """
import sys
from pathlib import Path
from overlay.supervision import forwarder
from overlay.config import Options
from overlay.lifecycle import run
from peers.stores import Location
peers, key, interface, count, *program = sys.argv[1:]
genuine, others = forwarder.Starter.__call__, [program] * int(count)
forwarder.Starter.__call__ = lambda self: genuine(self, others.pop()) if others else genuine(self)
run(Options(Location.parse(peers), Path(key), interface))
"""

_wireguard_numbers = itertools.count()
_network_numbers = itertools.count(1)


LOGS: dict[str, Path] = {}
"""Of the agents that were made last, by host: a test that fails shows them."""


class Network:
    """An underlay, and the peers on it."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        mtu: int = 1500,
        offloads: bool = True,
        underlay: Namespace | None = None,
        is_forked: bool = True,
        **settings: Any,
    ) -> None:
        """With *is_forked*, tests.netns.forkserver forks agents and commands; otherwise the programs themselves are
        started.
        """
        self.is_forked = is_forked
        self.lab, self.directory, self.mtu, self.offloads = lab, directory, mtu, offloads
        self.number = next(_network_numbers)
        self.settings: dict[str, Any] = {"prefix": list(DEFAULT_PREFIXES), **settings}
        self.underlay = self.lab.switch(self.namespace_name("underlay"), mtu)
        self.peers: dict[str, Node] = {}
        self.more = ""  # further sections of the peers file

    def host(
        self, name: str, *, interface: str = INTERFACE, is_forked: bool | None = None, **settings: Any
    ) -> Host:
        """Return a new host on the underlay.  *settings* go into its table of the peers file; None removes one.

        *is_forked* overrides the setting of the network.
        """
        host = Host(self, name, len(self.peers) + 1, interface, settings)
        host.is_forked = self.is_forked if is_forked is None else is_forked
        return self._plug(host)

    def beside(self, directory: Path, interface: str, **settings: Any) -> Network:
        """Return another overlay of the same hosts, with separate keys and interfaces.  Host n has 10.245.n.0/24."""
        other = Network(self.lab, directory, underlay=self.underlay, **settings)
        for name, node in self.peers.items():
            subnets = {"subnets": [f"10.245.{node.number}.0/24"]}
            other.peers[name] = Host(other, name, node.number, interface, subnets, node.namespace)
        return other

    def wireguard(self, name: str, **settings: Any) -> WireGuard:
        """Return a new node that will run wireguard-go."""
        interface = f"wg{os.getpid()}x{next(_wireguard_numbers)}"
        return self._plug(WireGuard(self, name, len(self.peers) + 1, interface, settings))

    def start(self, **options: Any) -> None:
        """Start the agent of every host, and return once all are ready."""
        hosts = [node for node in self.peers.values() if isinstance(node, Host)]
        for host in hosts:
            host.launch(**options)
        for host in hosts:
            host.wait_ready()

    def close(self) -> None:
        """Stop the agents.  Fails if one does not stop cleanly, or had an error while it ran."""
        hosts = [node for node in self.peers.values() if isinstance(node, Host)]
        running = [host for host in hosts if host.is_running]
        for host in running:
            host.process.send_signal(signal.SIGTERM)
        for host in running:
            assert host.process.wait(PATIENCE) == 0, host.log
        for host in hosts:
            assert "Traceback" not in host.log, host.log

    def namespace_name(self, name: str) -> str:
        """Return a name that no other network of this run has."""
        return f"{self.number}-{name}"

    def toml(self) -> str:
        """Return the current peers file."""
        tables = [("network", self.settings)]
        tables += [(f"peers.{name}", node.settings) for name, node in self.peers.items()]
        lines = []
        for title, settings in tables:
            lines.append(f"[{title}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items() if value is not None]
        return "\n".join(lines) + "\n" + self.more

    def _plug(self, node: N) -> N:
        self.peers[node.name] = node
        end = node.namespace.end("eth0", f"{node.outside}/24", f"{node.outside6}/64")
        self.lab.plug(self.underlay, end, self.mtu, self.offloads)
        node.namespace.sysctl(
            "net.ipv4.conf.all.promote_secondaries=1",  # when an address is removed, others of its prefix remain
            "net.ipv4.icmp_ratelimit=0",  # the kernel's limits for errors are not under test
            "net.ipv6.icmp.ratelimit=0",
        )
        return node


class Node:
    """A peer: a namespace on the underlay with a key."""

    def __init__(
        self,
        network: Network,
        name: str,
        number: int,
        interface: str,
        settings: dict[str, Any],
        namespace: Namespace | None = None,
    ) -> None:
        self.network, self.name, self.number, self.interface = network, name, number, interface
        self.namespace = namespace or network.lab.namespace(network.namespace_name(name))
        self.private_key = PrivateKey(os.urandom(32))
        self.public_key = encode_key(self.private_key.public)
        self.directory = network.directory / name
        self.directory.mkdir()
        self.key_path = self.directory / "private.key"
        self.key_path.write_text(self.private_key.to_base64() + "\n")
        self.key_path.chmod(0o600)
        self.settings: dict[str, Any] = {
            "public_key": self.public_key,
            "endpoint": self.outside,
            "subnets": [f"10.244.{number}.0/24", f"fd00:244:{number}::/64"],
            **settings,
        }

    @property
    def outside(self) -> str:
        """Its IPv4 address on the underlay."""
        return f"192.0.2.{self.number}"

    @property
    def outside6(self) -> str:
        """Its IPv6 address on the underlay."""
        return f"2001:db8::{self.number}"

    @property
    def address(self) -> str:
        """Its IPv4 address on the overlay."""
        return f"10.244.{self.number}.0"

    @property
    def address6(self) -> str:
        """Its IPv6 address on the overlay."""
        return f"fd00:244:{self.number}::"

    def container(self, name: str, last: int = 2, mtu: int = 1500) -> Container:
        """Return a container behind this node, with the addresses that end in *last*."""
        address, address6 = f"10.244.{self.number}.{last}", f"fd00:244:{self.number}::{last}"
        namespace = self.network.lab.container(
            self.namespace,
            self.network.namespace_name(name),
            f"{address}/24",
            f"{address6}/64",
            gateways=(f"10.244.{self.number}.1", f"fd00:244:{self.number}::1"),
            mtu=mtu,
        )
        return Container(namespace, address, address6)

    def move(self, new: str, old: str | None = None, interface: str = "eth0") -> None:
        """Give the node another underlay address instead of *old*, by default the first one."""
        length, options = ("64", ["nodad"]) if ":" in new else ("24", [])
        before = old or (self.outside6 if ":" in new else self.outside)
        self.namespace.run("ip", "address", "add", f"{new}/{length}", "dev", interface, *options)
        self.namespace.run("ip", "address", "delete", f"{before}/{length}", "dev", interface)

    def ping(self, address: str, count: int = 1) -> None:
        """Check that *address* answers; several attempts, because the first may meet a handshake."""
        ping(self.namespace, address, count)


@dataclass(frozen=True)
class Container:
    """A host behind a node."""

    namespace: Namespace
    address: str
    address6: str

    def run(self, *command: str, **options: Any) -> str:
        """Run a command in it."""
        return self.namespace.run(*command, **options)

    def ping(self, address: str, count: int = 1) -> None:
        """Check that *address* answers."""
        ping(self.namespace, address, count)


class Host(Node):
    """A node that runs our agent."""

    process: subprocess.Popen[str] | Forked
    environment: Mapping[str, str] = MappingProxyType({})
    """Of its agent, beside ours."""

    def __init__(
        self,
        network: Network,
        name: str,
        number: int,
        interface: str,
        settings: dict[str, Any],
        namespace: Namespace | None = None,
    ) -> None:
        super().__init__(network, name, number, interface, settings, namespace)
        self.is_forked = network.is_forked
        self.peers_path = self.directory / "peers.toml"
        self.log_path = self.directory / "log"
        LOGS[self.name] = self.log_path
        self.control_path = CONTROL / f"{interface}.{self.namespace.inode}.sock"
        self._log_start = 0
        network.lab.on_exit(self._clean_up)

    # Life cycle

    def write(self, text: str | None = None) -> None:
        """Write this host's peers file: the network's current one, or *text*."""
        fresh = self.directory / "peers.new"
        fresh.write_text(self.network.toml() if text is None else text)
        fresh.rename(self.peers_path)

    def launch(
        self,
        *options: str,
        timing: dict[str, float] | None = None,
        hooks: Path | None = None,
        python: str = PYTHON,
    ) -> None:
        """Start the agent; return immediately.  With *timing* it uses those timers, with *hooks*
        and no other option.
        """
        if not self.peers_path.exists():
            self.write()
        files = [str(self.peers_path), str(self.key_path)]
        if timing is None:
            up = ["overlay", "up", "--peers", files[0], "--key", files[1], "--interface", self.interface]
            self._launch(COMMAND, [*up, "--log-level", "debug", *options], python)
        else:
            more = [] if hooks is None else [str(hooks)]
            self._launch(LAUNCHER, ["-c", *files, self.interface, json.dumps(timing), *more], python)

    def launch_with(self, *program: str, count: int = 1) -> None:
        """Start an agent whose first *count* forwarders are *program*; return at once."""
        self.write()
        arguments = [str(self.peers_path), str(self.key_path), self.interface, str(count), *program]
        self._launch(OTHER_FORWARDER, ["-c", *arguments])

    def _launch(self, code: str, arguments: list[str], python: str = PYTHON) -> None:
        """Start a Python process that runs *code* with *arguments*, which identify it."""
        with self.log_path.open("a") as log, Path(os.devnull).open() as nothing:
            self._log_start = log.tell()
            if self.is_forked and python == PYTHON:
                standard = nothing.fileno(), log.fileno(), log.fileno()
                self.process = server().fork(
                    self.namespace, code, arguments, standard, environment=self.environment
                )
            else:
                program = ["-m", *arguments] if code is COMMAND else ["-c", code, *arguments[1:]]
                self.process = self.namespace.popen(
                    python, *program, stdin=nothing, stdout=log, stderr=log, env=self.environment
                )

    def wait_ready(self) -> None:
        """Return once the agent has reported that it is ready."""
        wait_until(
            lambda: "INFO ready" in self.log or not self.is_running, PATIENCE, f"{self.name} to be ready"
        )
        assert self.is_running, self.log

    def start(self, *options: str, **named: Any) -> None:
        """Start the agent and return once it is ready."""
        self.launch(*options, **named)
        self.wait_ready()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send the agent a signal, wait for its end, check that it was clean, and return its log."""
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log
        return self.log

    def kill(self) -> None:
        """Kill the agent, and wait until it and its forwarder have ended."""
        forwarder = self.status()["forwarder_pid"]
        self.process.kill()
        self.process.wait(PATIENCE)
        wait_until(lambda: not is_alive(forwarder), PATIENCE, "the forwarder to follow its agent")

    @property
    def is_running(self) -> bool:
        """Whether the agent runs."""
        return hasattr(self, "process") and self.process.poll() is None

    @property
    def log(self) -> str:
        """What the agent has logged since its last start."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open() as file:
            file.seek(self._log_start)
            return file.read()

    # Commands and their answers

    def overlay(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command ``overlay`` on this host, as its user would."""
        if self.is_forked and not options:
            words = ["overlay", *arguments]
            return server().completed(self.namespace, COMMAND, words, environment=self.environment)
        return self.namespace.completed(PYTHON, "-m", "overlay", *arguments, **options)

    def status(self) -> dict[str, Any]:
        """Return the output of ``overlay status --json``."""
        answer: dict[str, dict[str, Any]] = control.request(self.control_path, {"op": "status"}, PATIENCE)
        return answer["status"]

    def services(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the rows of ``overlay services --json``, once the forwarder reports its counters in time for it."""
        told: list[dict[str, Any]] = []

        def is_told() -> bool:
            done = self.overlay("services", *arguments, "--json")
            if done.returncode == 0:
                told.extend(json.loads(done.stdout)["services"])
            return done.returncode == 0

        wait_until(is_told, PATIENCE, f"{self.name} to show its services")
        return told

    def peer(self, other: Node) -> dict[str, Any]:
        """Return the row of *other* in the status."""
        return next(row for row in self.status()["peers"] if row["name"] == other.name)

    def wait_peer(self, other: Node, what: str, condition: Callable[[dict[str, Any]], object]) -> None:
        """Return once the row of *other* meets *condition*."""
        wait_until(lambda: condition(self.peer(other)), PATIENCE, f"{self.name} to see {other.name} {what}")

    def wait_up(self, *others: Node) -> None:
        """Return once there are sessions with *others*."""
        for other in others:
            self.wait_peer(other, "up", lambda row: row["state"] == "up")

    def drops(self, other: Node | None = None) -> dict[str, int]:
        """Return what was dropped, by reason: of *other*, or of no peer."""
        told: dict[str, int] = self.peer(other)["drops"] if other is not None else self.status()["drops"]
        return told

    def faults(self, other: Node) -> dict[str, int]:
        """Return what was dropped of *other*, except for drops that a busy machine causes."""
        dropped = self.drops(other) or {}
        return {reason: count for reason, count in dropped.items() if reason not in OVERLOAD}

    def reload(self, text: str | None = None) -> str:
        """Write the peers file, make the agent read it, and return the line that it logs about that.

        The agent may have seen the change by itself: that reload is another.
        """
        reloads = self._reload_lines()
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self._reload_lines()) > len(reloads), PATIENCE, f"{self.name} to reload")
        return self._reload_lines()[-1]

    def _reload_lines(self) -> list[str]:
        return re.findall(r"(?:INFO reloaded|ERROR reload refused) cause=SIGHUP.*\n", self.log)

    def _clean_up(self) -> None:
        """Remove everything from /run, however the agent ended."""
        if self.is_running:
            self.process.kill()
            self.process.wait()
        for path in CONTROL.glob(f"*.{self.namespace.inode}.*"):
            path.unlink(missing_ok=True)


class WireGuard(Node):
    """A node that runs wireguard-go, set up with ``wg``."""

    process: subprocess.Popen[str]

    def start(self, listen_port: int = PORT) -> None:
        """Start wireguard-go; set its key, port, addresses, and routes to the overlay."""
        with (self.directory / "log").open("a") as log:
            self.process = self.namespace.popen(
                "wireguard-go",
                "-f",
                self.interface,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LOG_LEVEL": "verbose", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"},
            )
        self.network.lab.on_exit(self.stop)
        path = WIREGUARD_SOCKETS / f"{self.interface}.sock"
        wait_until(lambda: path.exists() or self.process.poll() is not None, PATIENCE, "wireguard-go")
        wait_until(
            lambda: self.namespace.completed("wg", "show", self.interface).returncode == 0,
            PATIENCE,
            "wireguard-go to answer",
        )
        self.set("private-key", str(self.key_path), "listen-port", str(listen_port))
        for address in (f"{self.address}/32", f"{self.address6}/128"):
            self.namespace.run("ip", "address", "add", address, "dev", self.interface, "nodad")
        self.namespace.run("ip", "link", "set", self.interface, "up")
        for prefix in self.network.settings["prefix"]:
            source = self.address6 if ":" in prefix else self.address
            self.namespace.run("ip", "route", "add", prefix, "dev", self.interface, "src", source)

    def set(self, *arguments: str) -> None:
        """Run ``wg set`` on the interface."""
        self.namespace.run("wg", "set", self.interface, *arguments)

    def meet(self, other: Node, *, endpoint: str | None = None, **settings: str) -> None:
        """Add *other* as a peer; *settings* are named as in ``wg set``, with underscores for dashes."""
        arguments = ["peer", other.public_key, "allowed-ips", ",".join(other.settings["subnets"])]
        if endpoint is not None:
            arguments += ["endpoint", endpoint]
        for key, value in settings.items():
            arguments += [key.replace("_", "-"), value]
        self.set(*arguments)

    def show(self, other: Node) -> WireGuardPeer:
        """Return the line of ``wg show dump`` about *other*."""
        for line in self.namespace.run("wg", "show", self.interface, "dump").splitlines()[1:]:
            fields = line.split("\t")
            if fields[0] == other.public_key:
                return WireGuardPeer(fields[2], int(fields[4]), int(fields[5]), int(fields[6]))
        raise AssertionError(f"{self.name} does not know {other.name}")

    def stop(self) -> None:
        """Stop wireguard-go, if it runs; its interface is removed with it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        (WIREGUARD_SOCKETS / f"{self.interface}.sock").unlink(missing_ok=True)


@dataclass(frozen=True)
class WireGuardPeer:
    """A peer as wireguard-go shows it."""

    endpoint: str
    latest_handshake: int
    rx_bytes: int
    tx_bytes: int


# Ping


def ping(namespace: Namespace, address: str, count: int = 1, *options: str, interval: float = 0.02) -> None:
    """Check that *address* answers *count* requests in a row in time.  Interval 0 is as fast as they return."""
    command = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1", *options, address]
    said = ""

    def answers() -> bool:
        nonlocal said
        done = namespace.completed(*command)
        said = done.stdout + done.stderr
        return f" {count} received" in said

    try:
        wait_until(answers, PATIENCE, f"{address} to answer {namespace.name}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{said}") from None


def is_silent(namespace: Namespace, address: str) -> bool:
    """Return whether *address* does not answer."""
    return namespace.completed("ping", "-n", "-c1", "-W1", address).returncode != 0


class Pinger:
    """A ``ping`` that runs while something else happens."""

    def __init__(self, namespace: Namespace, address: str, interval: float, path: Path) -> None:
        self._namespace, self._path = namespace, path
        self._unanswered = unanswered(namespace)  # requests of before
        with path.open("w") as output:
            self.process = namespace.popen(
                *("ping", "-n", "-i", str(interval), address), stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def received(self) -> set[int]:
        """The numbers of the requests that were answered."""
        return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", self._path.read_text())}

    def go_on(self, count: int = 20) -> None:
        """Return once *count* more requests have been answered."""
        before = len(self.received)
        wait_until(
            lambda: len(self.received) >= before + count, PATIENCE, f"{count} more answers to {self._path}"
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Send nothing inside the block, and have no request in flight when it begins: its answer could not be
        promised.  Over IPv4.
        """
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(
                lambda: (
                    process_state(self.process.pid) == "T" and unanswered(self._namespace) <= self._unanswered
                ),
                PATIENCE,
                "every request to be answered",
            )
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @property
    def lost(self) -> list[int]:
        """Return the requests without an answer among those sent before the last one that was answered."""
        received = self.received
        return sorted(set(range(1, max(received, default=0) + 1)) - received)


def unanswered(namespace: Namespace) -> int:
    """Return how many ICMP echo requests of *namespace* have no answer, or none yet."""
    with namespace.entered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Icmp:"))
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["OutEchos"] - counted["InEchoReps"]


@contextlib.contextmanager
def pinging(namespace: Namespace, address: str, directory: Path, interval: float = 0.02) -> Iterator[Pinger]:
    """Ping *address* inside the block: it must answer at the beginning, and still at the end."""
    number = len(list(directory.glob("ping-*")))
    pinger = Pinger(namespace, address, interval, directory / f"ping-{number}")
    try:
        pinger.go_on(5)
        yield pinger
        pinger.go_on(5)
    finally:
        pinger.process.send_signal(signal.SIGINT)
        pinger.process.wait(PATIENCE)


# TCP and UDP.  The sockets belong to this process, each in its namespace.


def connect(
    client: Namespace, server: Namespace, address: str, backlog: int = 64
) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection from *client* to *server*, which has *address*."""
    with server.entered():
        listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=backlog
        )
    with listener:
        with client.entered():
            near = socket.create_connection(listener.getsockname()[:2], timeout=PATIENCE)
        listener.settimeout(PATIENCE)
        far, _ = listener.accept()
        far.settimeout(PATIENCE)
    return near, far


def transfer(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Send *size* random bytes over a TCP connection, half-close it, and check that the same bytes arrive."""
    data = os.urandom(min(size, 1 << 20))
    sent, received = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        left = size
        with contextlib.suppress(OSError):  # the receiver sees what is missing
            while left:
                piece = data[:left]
                sender.sendall(piece)
                sent.update(piece)
                left -= len(piece)
            sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    arrived = 0
    try:
        while piece := receiver.recv(1 << 18):
            received.update(piece)
            arrived += len(piece)
    finally:
        if arrived < size:
            sender.close()
        thread.join(PATIENCE)
    assert arrived == size
    assert received.digest() == sent.digest()


def transfer_both_ways(one: Namespace, other: Namespace, address: str, size: int) -> None:
    """Move *size* bytes each way over TCP connections from *one* to *other* at *address*."""
    for turned in (False, True):
        near, far = connect(one, other, address)
        with near, far:
            transfer(*((far, near) if turned else (near, far)), size)


@contextlib.contextmanager
def udp_pair(
    client: Namespace, server: Namespace, address: str
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a UDP socket of *client* connected to one of *server*, which is bound to *address*."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server.entered():
        far = socket.socket(family, socket.SOCK_DGRAM)
    with client.entered():
        near = socket.socket(family, socket.SOCK_DGRAM)
    with near, far:
        far.bind((address, 0))
        near.connect(far.getsockname()[:2])
        for each in (near, far):
            each.settimeout(PATIENCE)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield near, far


def deliver(near: socket.socket, far: socket.socket, datagram: bytes) -> None:
    """Send *datagram* until it arrives at the other end; the first may meet a handshake, or reveal the path MTU."""
    wait_until(
        lambda: arrives(near, far, datagram), PATIENCE, f"a datagram of {len(datagram)} bytes to arrive"
    )


def arrives(near: socket.socket, far: socket.socket, datagram: bytes, timeout: float = 1.0) -> bool:
    """Send *datagram* and return whether it arrives at the other end in time."""
    try:
        near.send(datagram)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:  # the answer to an earlier one: the next is fragmented
            raise
        return False
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([far], [], [], left)[0]:
            return False
        if far.recv(65536) == datagram:
            return True
    return False


# ICMP errors


@dataclass(frozen=True)
class IcmpError:
    """An error as the socket that caused it sees it."""

    type: int
    code: int
    offender: str


def icmp_error(namespace: Namespace, address: str, patience: float = PATIENCE) -> IcmpError:
    """Send datagrams to *address* until an ICMP error comes back, and return that."""
    is_ipv6 = ":" in address
    with namespace.entered():
        udp = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    level, option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, IP_RECVERR)
    deadline = time.monotonic() + patience
    with udp:
        udp.setsockopt(level, option, 1)
        poll = select.poll()
        poll.register(udp, 0)  # errors alone
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # it may report the error of an earlier one
                udp.sendto(b"anybody there?", (address, 9))
            if not poll.poll(500):
                continue
            _, control_messages, _, _ = udp.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            for _, _, data in control_messages:
                _, origin, kind, code, _, _ = _EXTENDED_ERROR.unpack_from(data)
                if origin not in {2, 3}:  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6; 1 is this very host
                    continue
                return IcmpError(kind, code, _offender(data[_EXTENDED_ERROR.size :]))
    raise AssertionError(f"no ICMP error came back to {namespace.name} from {address}")


def _offender(sockaddr: bytes) -> str:
    family = int.from_bytes(sockaddr[:2], sys.byteorder)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, sockaddr[4:8])
    return socket.inet_ntop(family, sockaddr[8:24])


# Processes and leftovers


def trace(namespace: Namespace) -> str:
    """Return links, addresses, routes, rules and settings, except for the state of links, which settles by itself."""
    return "\n".join(
        f"{title}: {re.sub(r' state [A-Z]+', '', line)}"
        for title, lines in namespace.dump().items()
        for line in lines
    )


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return process_state(pid) not in {"Z", "X"}
    except OSError:
        return False


def process_state(pid: int) -> str:
    """Return the state of the process, such as ``T``: it is stopped.  Raises OSError if there is none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def processes_in(namespace: Namespace) -> list[str]:
    """Return the ids of the processes in *namespace*."""
    return subprocess.run(
        ["ip", "netns", "pids", namespace.full_name], capture_output=True, text=True, check=True
    ).stdout.split()


def cpu_seconds(pid: int) -> float:
    """Return how much processor time the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """Return how many descriptors the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def nft(namespace: Namespace, rules: str) -> None:
    """Load *rules* into the namespace's firewall."""
    namespace.run("nft", "-f", "-", stdin=rules)


__all__ = ["CommandError"]
