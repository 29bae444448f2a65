"""Show an overlay of three hosts on one machine.

Paris, Tokyo and Berlin are network namespaces, joined by an underlay that is another one.  Behind each is a container,
behind Tokyo also a LAN.  Real agents connect them; then pings, a file and a host that moves show what an overlay does.
Nothing outside these namespaces is touched, and at the end, or at Ctrl-C, all of it is removed.
"""

# ruff: noqa: E402  a Ctrl-C while modules are loaded ends the program without a word: there is nothing to remove yet

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

OVERLAY = Path(sys.executable).with_name("overlay")
NAMESPACES = Path("/run/netns")
CONTROL_SOCKETS = Path("/run/overlay")
FOLDERS = Path("/tmp")  # where each demo makes a folder for root alone
# The name of a demo, with the process that began it, is that of its folder; namespaces add what they are.
NAME = re.compile(r"(overlay-demo-(\d+)(?:\.\d+)?)(-.*)?")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

FILE_SIZE = 64 * 1024 * 1024
PATIENCE = 20.0  # seconds for one command, or for all agents to be ready
TRANSFER_PATIENCE = 60.0
STOP_PATIENCE = 10.0
PING_INTERVAL = 0.1
PINGS_BEFORE, PINGS_AFTER = 10, 15  # answers to be seen before and after the move
LOG_LINES = 12  # of each agent, shown after a failure

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


class DemoError(Exception):
    """A step failed; the text is one sentence."""


class StoppedError(BaseException):
    """Somebody wants the demo to end."""


@dataclass(frozen=True)
class Place:
    """A namespace with one address, behind a host."""

    name: str
    host: str
    address: str
    gateway: str


@dataclass(frozen=True)
class Host:
    """A host with its address on the underlay and what is behind it."""

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


class Interruptions:
    """Makes StoppedError of the first signal, wherever the program is, unless it must not be disturbed just then."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_pending = False
        self._is_over = False

    def watch(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Let nothing disturb what comes now."""
        self._is_over = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put a signal off until the end of the block."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if self._is_pending:
                self.stop()

    def stop(self) -> None:
        """Raise StoppedError, once."""
        if not self._is_over:
            self._is_over = True
            raise StoppedError

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_held:
            self._is_pending = True
        else:
            self.stop()


class Screen:
    """What the user sees: one line for each step."""

    def __init__(self, interruptions: Interruptions) -> None:
        self._interruptions = interruptions
        self._is_terminal = sys.stdout.isatty()
        self._is_gone = False
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
        try:
            "✔✘".encode(sys.stdout.encoding)
            self._tick, self._cross = "✔", "✘"
        except UnicodeEncodeError:
            self._tick, self._cross = "ok", "FAILED"

    def say(self, text: str = "", end: str = "\n") -> None:
        """Print *text*.  Whoever left stops the demo as Ctrl-C does."""
        if self._is_gone:
            return
        try:
            print(text, end=end, flush=True)
        except OSError:
            self._is_gone = True
            # What is still in the buffer must not fail again when the program ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._interruptions.stop()

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[list[str]]:
        """Show *text* with a tick after the block, and what the block appended to the list."""
        notes: list[str] = []
        if self._is_terminal:
            self.say(f"  {text} ...", end="")
        clear = "\r\033[K" if self._is_terminal else ""
        try:
            yield notes
        except BaseException:
            with contextlib.suppress(StoppedError):
                self.say(f"{clear}{self._cross} {text}")
            raise
        self.say(f"{clear}{self._tick} {': '.join([text, *notes])}")


class Demo:
    """The namespaces, agents and files of one demo, and its steps."""

    def __init__(self, name: str, screen: Screen, interruptions: Interruptions) -> None:
        self.name = name
        self.folder = FOLDERS / name
        self._screen, self._interruptions = screen, interruptions
        self._processes: list[subprocess.Popen[str]] = []
        self._agents: dict[str, subprocess.Popen[str]] = {}

    def run(self) -> None:
        """Take every step.  Raises DemoError at the first that fails."""
        step = self._screen.step
        with step("three hosts on an underlay, a container behind each, a LAN behind tokyo"):
            self._build()
        with step("a key for each host, one peers.toml for all, accepted by `overlay check`"):
            self._write_peers()
        with step("`overlay up --peers peers.toml` on each host") as notes:
            notes.append(f"all ready after {self._start_agents():.2f} s")
        for source, target in _directions():
            with step(f"ping from {_described(source)} to {_described(target)}") as notes:
                notes.append(self._ping(source, target))
        with step("a file of 64 MiB over TCP from the container of paris to that of tokyo") as notes:
            notes.append(self._move_file())
        with step(
            f"berlin moves from {BERLIN.underlay} to {MOVED_TO} while its container pings that of paris"
        ) as notes:
            notes.append(self._move_host())
        self._screen.say("\n`overlay status` on paris:\n")
        self._screen.say(self._in("paris", str(OVERLAY), "status"))

    # The network

    def _build(self) -> None:
        self._add_namespace("underlay")
        self._add_bridge("underlay", "switch")
        for host in HOSTS:
            self._add_namespace(host.name)
            self._add_cable(host.name, "eth0", "underlay", host.name)
            self._in("underlay", "ip", "link", "set", host.name, "master", "switch")
            self._in(host.name, "ip", "address", "add", f"{host.underlay}/24", "dev", "eth0")
            self._in(host.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            for number, place in enumerate(host.places):
                bridge = f"bridge{number}"
                self._add_namespace(place.name)
                self._add_bridge(host.name, bridge)
                self._add_cable(place.name, "eth0", host.name, f"port{number}")
                self._in(host.name, "ip", "link", "set", f"port{number}", "master", bridge)
                self._in(host.name, "ip", "address", "add", f"{place.gateway}/24", "dev", bridge)
                self._in(place.name, "ip", "address", "add", f"{place.address}/24", "dev", "eth0")
                self._in(place.name, "ip", "route", "add", "default", "via", place.gateway)

    def _add_namespace(self, name: str) -> None:
        self._run("ip", "netns", "add", self._full(name))
        self._in(name, "ip", "link", "set", "lo", "up")

    def _add_bridge(self, namespace: str, name: str) -> None:
        self._in(namespace, "ip", "link", "add", name, "type", "bridge", "forward_delay", "0")
        self._in(namespace, "ip", "link", "set", name, "up")

    def _add_cable(self, one: str, one_end: str, other: str, other_end: str) -> None:
        self._run(
            *("ip", "link", "add", one_end, "netns", self._full(one), "type", "veth"),
            *("peer", "name", other_end, "netns", self._full(other)),
        )
        self._in(one, "ip", "link", "set", one_end, "up")
        self._in(other, "ip", "link", "set", other_end, "up")

    # The overlay

    def _write_peers(self) -> None:
        lines = ["[network]", 'prefix = "10.244.0.0/16"']
        for host in HOSTS:
            public_key = self._run(OVERLAY, "keygen", "--key", self._key(host.name)).strip()
            lines += [
                "",
                f"[peers.{host.name}]",
                f'public_key = "{public_key}"',
                f'endpoint = "{host.underlay}"',
                f"subnets = {json.dumps(host.subnets)}",
            ]
        self._peers.write_text("\n".join(lines) + "\n")
        self._run(OVERLAY, "check", "--peers", self._peers, "--key", self._key(PARIS.name))

    def _start_agents(self) -> float:
        """Return the seconds until all agents said that they are ready, as they would say to systemd."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            listeners: dict[str, socket.socket] = {}
            for host in HOSTS:
                listener = stack.enter_context(
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                )
                listener.bind(str(self.folder / f"{host.name}.notify"))
                listeners[host.name] = listener
                self._start_agent(host.name)
            self._wait_for(
                lambda: all([self._is_ready(name, listener) for name, listener in listeners.items()]),  # noqa: C419  each is asked
                "an agent was not ready",
            )
        return time.monotonic() - began

    def _start_agent(self, host: str) -> None:
        with self._log(host).open("w") as log:
            self._agents[host] = self._popen(
                *self._entering(host),
                *(OVERLAY, "up", "--peers", self._peers, "--key", self._key(host)),
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / f"{host}.notify")},
            )
        # `ip netns exec` has become the agent: same process.  For --stop, and for the demo after a killed one.
        (self.folder / "agents.json").write_text(json.dumps([agent.pid for agent in self._agents.values()]))

    def _is_ready(self, host: str, listener: socket.socket) -> bool:
        code = self._agents[host].poll()
        if code is not None:
            raise DemoError(f"the agent of {host} ended with exit code {code} instead of getting ready")
        with contextlib.suppress(BlockingIOError):
            while True:
                if b"READY=1" in listener.recv(4096).split(b"\n"):
                    (self.folder / f"{host}.ready").touch()
        return (self.folder / f"{host}.ready").exists()

    # What it can do

    def _ping(self, source: Place, target: Place) -> str:
        """Return how long answers took, after two of them."""
        try:
            said = self._in(source.name, "ping", "-n", "-i", "0.2", "-c", "2", "-w", "10", target.address)
        except DemoError:
            raise DemoError(f"{_described(target)} did not answer within 10 s") from None
        times = [float(each) for each in re.findall(r"time=([\d.]+) ms", said)]
        return " and ".join(f"{each:.2f} ms" for each in times)

    def _move_file(self) -> str:
        """Move the file, compare the sums and return the rate."""
        sent, received = self.folder / "sent", self.folder / "received"
        with sent.open("wb") as file:
            for _ in range(FILE_SIZE // 2**20):
                file.write(os.urandom(2**20))
        source, target = PARIS.places[0], TOKYO.places[0]
        sender = self._popen(
            *self._entering(source.name),
            *(sys.executable, "-c", SEND_FILE, source.address, sent),
            stdout=subprocess.PIPE,
        )
        assert sender.stdout is not None
        if sender.stdout.readline() != "listening\n":
            raise DemoError("the container of paris could not listen")
        took = float(
            self._in(
                *(target.name, sys.executable, "-c", RECEIVE_FILE, source.address, str(received)),
                timeout=TRANSFER_PATIENCE,
            )
        )
        self._end(sender)
        sums = [_sha256(path) for path in (sent, received)]
        if sums[0] != sums[1]:
            raise DemoError(f"what arrived differs from what was sent: sha256 {sums[1]} instead of {sums[0]}")
        sent.unlink()
        received.unlink()
        return f"{FILE_SIZE / took / 2**20:.0f} MiB/s, the same sha256 at both ends"

    def _move_host(self) -> str:
        """Give Berlin another address while pings run; return what became of them."""
        answers = self.folder / "pings"
        with answers.open("w") as file:
            ping = self._popen(
                *self._entering(BERLIN.places[0].name),
                *("ping", "-n", "-i", str(PING_INTERVAL), PARIS.places[0].address),
                stdout=file,
            )

        def answered() -> list[int]:
            return [int(each) for each in re.findall(r"bytes from .* icmp_seq=(\d+) ", answers.read_text())]

        self._wait_for(
            lambda: len(answered()) >= PINGS_BEFORE, "the container of paris did not answer before the move"
        )
        last_before = max(answered())
        self._in(BERLIN.name, "ip", "address", "delete", f"{BERLIN.underlay}/24", "dev", "eth0")
        self._in(BERLIN.name, "ip", "address", "add", f"{MOVED_TO}/24", "dev", "eth0")
        self._wait_for(
            lambda: sum(number > last_before for number in answered()) >= PINGS_AFTER,
            "pings from the moved host went without answers",
        )
        self._end(ping)
        numbers = answered()
        self._wait_for(
            lambda: self._endpoint("paris", "berlin").startswith(MOVED_TO), "paris did not notice the move"
        )
        lost = max(numbers) - len(set(numbers))
        return f"{lost} of {max(numbers)} pings lost, paris now reaches berlin at {self._endpoint('paris', 'berlin')}"

    def _endpoint(self, host: str, peer: str) -> str:
        status = json.loads(self._in(host, str(OVERLAY), "status", "--json"))
        return next(str(row["endpoint"]) for row in status["peers"] if row["name"] == peer)

    # Processes

    def _in(self, namespace: str, *command: str, timeout: float = PATIENCE) -> str:
        return self._run(*self._entering(namespace), *command, timeout=timeout)

    def _run(self, *command: str | Path, timeout: float = PATIENCE) -> str:
        """Return what *command* printed.  Raises DemoError if it fails or takes too long."""
        process = self._popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DemoError(f"`{_text(command)}` did not end within {timeout:g} s") from None
        self._processes.remove(process)
        if process.returncode != 0:
            said = " ".join((complaint or output).split()) or f"exit {process.returncode}"
            raise DemoError(f"`{_text(command)}` failed: {said}")
        return output

    def _popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command*, out of reach of the terminal's Ctrl-C: its end is our matter."""
        with self._interruptions.held():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=self.folder,
                start_new_session=True,
                **options,
            )
            self._processes.append(process)
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._processes.remove(process)

    def _wait_for(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise DemoError(f"{failure} within {PATIENCE:g} s")
            time.sleep(0.01)

    def _entering(self, namespace: str) -> tuple[str, ...]:
        return "ip", "netns", "exec", self._full(namespace)

    # Names

    @property
    def _peers(self) -> Path:
        return self.folder / "peers.toml"

    def _full(self, namespace: str) -> str:
        return f"{self.name}-{namespace}"

    def _key(self, host: str) -> Path:
        return self.folder / f"{host}.key"

    def _log(self, host: str) -> Path:
        return self.folder / f"{host}.log"

    # The end

    def show_logs(self) -> None:
        """Print which agents have ended, and how the logs of all end."""
        for name, agent in self._agents.items():
            if agent.poll() is not None:
                self._screen.say(f"The agent of {name} has ended with exit code {agent.returncode}.")
        for host in HOSTS:
            if self._log(host.name).exists():
                self._screen.say(f"\nThe log of {host.name} ends:")
                for line in self._log(host.name).read_text(errors="replace").splitlines()[-LOG_LINES:]:
                    self._screen.say(f"  {line}")

    def keep(self) -> None:
        """Leave all of it running, and say how to use and how to stop it."""
        (self.folder / "kept").touch()
        say = self._screen.say
        say("It goes on running.  Enter a host, a container or the LAN:\n")
        for host in HOSTS:
            for name in (host.name, *(place.name for place in host.places)):
                say(f"  ip netns exec {self._full(name)} bash")
        say("\nAsk the agent of a host:\n")
        say(f"  ip netns exec {self._full('paris')} {OVERLAY} status")
        say(f"  ip netns exec {self._full('paris')} {OVERLAY} ping tokyo")
        say(f"\nThe peers file, the keys and the logs are in {self.folder}.  Stop and remove all of it:\n")
        say(f"  scripts/demo --stop {self.name}")

    def remove(self) -> None:
        """End the processes and remove the namespaces and the folder, as far as they exist."""
        namespaces = [path for path in _listed(NAMESPACES) if _name_of(path) == self.name]
        agents = set[int]()
        with contextlib.suppress(OSError, ValueError):
            agents.update(json.loads((self.folder / "agents.json").read_text()))
        agents.update(agent.pid for agent in self._agents.values())
        # A process id may have gone to somebody else meanwhile: only what is in our namespaces is ended.
        _signal(agents & _pids_in(namespaces), signal.SIGTERM)
        self._wait_gone(lambda: agents & _pids_in(namespaces))
        _signal(_pids_in(namespaces), signal.SIGKILL)
        for process in self._processes:
            process.kill()  # nothing if it was reaped
        self._wait_gone(lambda: _pids_in(namespaces))
        for process in self._processes:
            process.wait()
        for path in namespaces:
            with contextlib.suppress(FileNotFoundError):  # two demos may clean up after a killed one at once
                inode = path.stat().st_ino
                for left in CONTROL_SOCKETS.glob(f"*.{inode}.*"):  # by an agent that had to be killed
                    left.unlink(missing_ok=True)
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)
        is_first = (self.folder / "first").exists()
        shutil.rmtree(self.folder, ignore_errors=True)
        if is_first:
            with contextlib.suppress(OSError):
                CONTROL_SOCKETS.rmdir()
        left_over = [str(path) for path in (*namespaces, self.folder) if path.exists()]
        if left_over:
            raise DemoError(f"could not be removed: {', '.join(left_over)}")

    @staticmethod
    def _wait_gone(pids: Callable[[], set[int]]) -> None:
        deadline = time.monotonic() + STOP_PATIENCE
        while pids() and time.monotonic() < deadline:
            time.sleep(0.02)


def _directions() -> list[tuple[Place, Place]]:
    """Return what pings what: everything behind a host everything behind the others."""
    places = [place for host in HOSTS for place in host.places]
    return [
        (source, target) for source, target in itertools.permutations(places, 2) if source.host != target.host
    ]


def _described(place: Place) -> str:
    return f"the {'LAN' if place.name.endswith('lan') else 'container'} of {place.host}"


def _text(command: tuple[str | Path, ...]) -> str:
    words = [str(word) for word in command]
    if words[:3] == ["ip", "netns", "exec"]:
        words = words[4:]
    return " ".join([Path(words[0]).name, *words[1:]])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _name_of(path: Path) -> str | None:
    match = NAME.fullmatch(path.name)
    return match[1] if match else None


def _pids_in(namespaces: list[Path]) -> set[int]:
    pids = set[int]()
    for path in namespaces:
        listed = subprocess.run(
            ["ip", "netns", "pids", path.name], capture_output=True, text=True, check=False
        )
        pids.update(int(pid) for pid in listed.stdout.split())
    return pids


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _known_demos() -> dict[str, str]:
    """Return each demo of this machine and whether it is ``kept``, ``at work`` or ``dead`` (it was killed)."""
    demos = {}
    for path in (*_listed(FOLDERS), *_listed(NAMESPACES)):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        folder = FOLDERS / match[1]
        if folder.exists() and (folder.is_symlink() or folder.stat().st_uid != 0):
            continue
        otherwise = "at work" if _is_demo(int(match[2])) else "dead"  # asked first: it may be ending just now
        demos[match[1]] = "kept" if (folder / "kept").exists() else otherwise
    return demos


def _is_demo(pid: int) -> bool:
    try:
        return b"demo.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _new_demo(screen: Screen, interruptions: Interruptions) -> Demo:
    """Return a demo with a folder of its own; what killed ones left is removed."""
    for name, state in _known_demos().items():
        if state == "dead":
            Demo(name, screen, interruptions).remove()
    for number in itertools.count(1):
        demo = Demo(
            f"overlay-demo-{os.getpid()}" + (f".{number}" if number > 1 else ""), screen, interruptions
        )
        with contextlib.suppress(FileExistsError):
            is_first = not CONTROL_SOCKETS.exists()
            demo.folder.mkdir(mode=0o700)
            if is_first:
                (demo.folder / "first").touch()
            return demo
    raise AssertionError


def stop(name: str, screen: Screen, interruptions: Interruptions) -> int:
    """Remove the demo *name*, or all that are kept if it is empty; return the exit code."""
    demos = _known_demos()
    if name and name not in demos:
        print(f"scripts/demo: there is no demo {name}", file=sys.stderr)
        return 2
    chosen = [name] if name else [each for each, state in demos.items() if state != "at work"]
    if not chosen:
        print("scripts/demo: no demo is kept running")
    for each in chosen:
        if demos[each] == "at work":
            print(f"scripts/demo: {each} is at work: press Ctrl-C where it runs", file=sys.stderr)
            return 1
        with screen.step(f"{each} stopped and removed"):
            Demo(each, screen, interruptions).remove()
    return 0


def show(keep: bool, screen: Screen, interruptions: Interruptions) -> int:
    """Run the demo; return the exit code.  Whatever happens, nothing is left unless it is to be kept."""
    code = 1
    demo: Demo | None = None
    is_kept = False
    try:
        try:
            with interruptions.held():
                demo = _new_demo(screen, interruptions)
            demo.run()
            screen.say(CLOSING)
            if keep:
                demo.keep()
                is_kept = True
            code = 0
        except DemoError as error:
            screen.say(f"\nThe demo failed: {error}.")
            if demo is not None:
                demo.show_logs()
        except StoppedError:
            code = 128 + signal.SIGINT
        finally:
            interruptions.ignore()
    except StoppedError:
        code = 128 + signal.SIGINT
    finally:
        if demo is not None and not is_kept:
            try:
                with contextlib.suppress(StoppedError), screen.step("everything removed"):
                    demo.remove()
            except DemoError as error:
                screen.say(f"{error}")
                code = 1
    return code


CLOSING = """\
What you saw: every container and the LAN reached each other through encrypted tunnels between the hosts, as one
network; the hosts found out by the keys in peers.toml who they are and what lies behind whom; and when one of them
changed its address under way, the others followed.
"""


def main() -> int:
    """Return the exit code: 0 shown, 1 failed, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and say how to enter and stop it"
    )
    parser.add_argument(
        "--stop",
        nargs="?",
        const="",
        metavar="NAME",
        help="stop and remove what --keep left: NAME, or all of it",
    )
    arguments = parser.parse_args()
    interruptions = Interruptions()
    interruptions.watch()
    screen = Screen(interruptions)
    if arguments.stop is not None:
        interruptions.ignore()
        try:
            return stop(arguments.stop, screen, interruptions)
        except DemoError as error:
            print(f"scripts/demo: {error}", file=sys.stderr)
            return 1
    if not Path("/dev/net/tun").exists():
        print("scripts/demo: this machine has no /dev/net/tun: load the kernel module tun", file=sys.stderr)
        return 1
    return show(arguments.keep, screen, interruptions)


if __name__ == "__main__":
    sys.exit(main())
