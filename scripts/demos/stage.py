"""The stage of a demo: network namespaces, agents, other processes and files, all of which are removed with it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overlay.crypto.keys import PrivateKey, encode_key
from overlay.errors import HostError
from overlay.host import control
from scripts.demos.screen import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scripts.demos.screen import Interruptions, Screen

OVERLAY = Path(sys.executable).with_name("overlay")
NAMESPACES = Path("/run/netns")
CONTROL_SOCKETS = Path("/run/overlay")
INTERFACE = "overlay0"  # of each agent
FOLDERS = Path("/tmp")  # where each demo makes a folder for root alone
# The name of a demo contains the process that began it.  Its folder has that name; namespaces append their own.
NAME = re.compile(r"(overlay-demo-(\d+)(?:\.\d+)?)(-.*)?")
PROGRAMS = (
    b"scripts.demos",
    b"demo.py",
)  # in the command line of a running demo; the second is that of earlier versions

PATIENCE = 20.0  # seconds for one command, or for all agents to be ready
STOP_PATIENCE = 10.0
LOG_LINES = 12  # of each agent, shown after a failure


class Stage:
    """The namespaces, processes and files of one demo, by its name."""

    def __init__(self, name: str, screen: Screen, interruptions: Interruptions) -> None:
        self.name = name
        self.folder = FOLDERS / name
        self._screen, self._interruptions = screen, interruptions
        self._processes: list[subprocess.Popen[str]] = []
        self._agents: dict[str, subprocess.Popen[str]] = {}
        self._killed: set[str] = set()  # the hosts whose agents were ended on purpose

    def step(self, text: str) -> contextlib.AbstractContextManager[list[str]]:
        """Show a step (see Screen.step)."""
        return self._screen.step(text)

    def say(self, text: str = "") -> None:
        """Print *text*."""
        self._screen.say(text)

    # The network

    def add_namespace(self, name: str) -> None:
        self.run("ip", "netns", "add", self.full(name))
        self.inside(name, "ip", "link", "set", "lo", "up")

    def add_bridge(self, namespace: str, name: str) -> None:
        self.inside(namespace, "ip", "link", "add", name, "type", "bridge", "forward_delay", "0")
        self.inside(namespace, "ip", "link", "set", name, "up")

    def add_cable(self, one: str, one_end: str, other: str, other_end: str) -> None:
        self.run(
            *("ip", "link", "add", one_end, "netns", self.full(one), "type", "veth"),
            *("peer", "name", other_end, "netns", self.full(other)),
        )
        self.inside(one, "ip", "link", "set", one_end, "up")
        self.inside(other, "ip", "link", "set", other_end, "up")

    # The overlay

    def keygen(self, host: str) -> str:
        """Make the key of *host* as `overlay keygen` does, and return its public key."""
        private = PrivateKey.generate(os.urandom)
        with open(self.key(host), "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(private.to_base64() + "\n")
        return encode_key(private.public)

    def write_peers(self, text: str, host: str) -> None:
        """Write the peers file of all hosts; `overlay check` accepts it on *host*."""
        self.peers.write_text(text)
        self.run(OVERLAY, "check", "--peers", self.peers, "--key", self.key(host))

    def start_agents(self, hosts: Iterable[str], peers: str | None = None) -> float:
        """Start the agents of *hosts*; return the seconds until they reported that they are ready, as to systemd.

        They read *peers*, by default the peers file.
        """
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            listeners: dict[str, socket.socket] = {}
            for host in hosts:
                listener = stack.enter_context(
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                )
                place = self.folder / f"{host}.notify"
                place.unlink(missing_ok=True)
                listener.bind(str(place))
                listeners[host] = listener
                self._start_agent(host, peers or str(self.peers))
            self.wait_for(
                lambda: all([self._is_ready(name, listener) for name, listener in listeners.items()]),  # noqa: C419  each is asked
                "an agent was not ready",
            )
        return time.monotonic() - began

    def ask(self, host: str, **question: Any) -> dict[str, Any]:
        """Return the answer of the agent of *host* at its control socket, where commands ask it.

        This costs a hundredth of running a command for each question.  Raises DemoError.
        """
        inode = (NAMESPACES / self.full(host)).stat().st_ino
        try:
            answer = control.request(CONTROL_SOCKETS / f"{INTERFACE}.{inode}.sock", question)
        except HostError as error:
            raise DemoError(f"the agent of {host} did not answer: {error}") from None
        if not answer.get("ok"):
            raise DemoError(f"the agent of {host} refused {question['op']}: {answer.get('error')}")
        return answer

    def let_end(self, host: str) -> None:
        """Expect the end of the agent of *host*, which then is not a failure."""
        self._agents.pop(host)

    def kill_agent(self, host: str) -> None:
        """Kill the agent of *host*; the rest of the host keeps running."""
        self.end(self._agents.pop(host))
        (self.folder / f"{host}.ready").unlink(missing_ok=True)

    def _start_agent(self, host: str, peers: str) -> None:
        with self.log(host).open("a") as log:
            self._agents[host] = self.popen(
                *self._entering(host),
                *(OVERLAY, "up", "--peers", peers, "--key", self.key(host), "--node", host),
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(self.folder / f"{host}.notify"),
                    "STATE_DIRECTORY": str(self.folder / f"{host}.state"),
                },
            )
        # `ip netns exec` has become the agent, in the same process.  For --stop, and for the demo after a killed one.
        (self.folder / "agents.json").write_text(json.dumps([agent.pid for agent in self._agents.values()]))

    def _is_ready(self, host: str, listener: socket.socket) -> bool:
        code = self._agents[host].poll()
        if code is not None:
            raise DemoError(f"the agent of {host} ended with exit code {code} before it was ready")
        with contextlib.suppress(BlockingIOError):
            while True:
                if b"READY=1" in listener.recv(4096).split(b"\n"):
                    (self.folder / f"{host}.ready").touch()
        return (self.folder / f"{host}.ready").exists()

    # Processes

    def start(self, namespace: str, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command* in a namespace."""
        return self.popen(*self._entering(namespace), *command, **options)

    def inside(self, namespace: str, *command: str, timeout: float = PATIENCE) -> str:
        """Return what *command* printed in a namespace (see run)."""
        return self.run(*self._entering(namespace), *command, timeout=timeout)

    def run(self, *command: str | Path, timeout: float = PATIENCE) -> str:
        """Return what *command* printed.  Raises DemoError if it fails or takes too long."""
        process = self.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DemoError(f"`{_text(command)}` did not end within {timeout:g} s") from None
        self._processes.remove(process)
        if process.returncode != 0:
            said = " ".join((complaint or output).split()) or f"exit {process.returncode}"
            raise DemoError(f"`{_text(command)}` failed: {said}")
        return output

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command* so that the terminal's Ctrl-C does not reach it: the demo ends it."""
        options.setdefault("stdin", subprocess.DEVNULL)
        with self._interruptions.held():
            process = subprocess.Popen(
                command,
                text=True,
                cwd=self.folder,
                start_new_session=True,
                **options,
            )
            self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill *process*."""
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._processes.remove(process)

    def wait_for(self, condition: Callable[[], bool], failure: str) -> None:
        """Wait until *condition* holds.

        Raises DemoError with *failure* if that takes too long, or with the name of an agent that has ended meanwhile.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            for name, agent in self._agents.items():
                if agent.poll() is not None and name not in self._killed:
                    raise DemoError(f"the agent of {name} ended with exit code {agent.returncode}")
            if time.monotonic() > deadline:
                raise DemoError(f"{failure} within {PATIENCE:g} s")
            time.sleep(0.05)

    def _entering(self, namespace: str) -> tuple[str, ...]:
        return "ip", "netns", "exec", self.full(namespace)

    @property
    def peers(self) -> Path:
        return self.folder / "peers.toml"

    def kill_all(self, namespace: str) -> None:
        """Kill every process in a namespace, as a power failure would."""
        self._killed.add(namespace)
        pids = _pids_in([NAMESPACES / self.full(namespace)])
        _signal(pids, signal.SIGKILL)

    # Names

    def full(self, namespace: str) -> str:
        return f"{self.name}-{namespace}"

    def key(self, host: str) -> Path:
        return self.folder / f"{host}.key"

    def log(self, host: str) -> Path:
        return self.folder / f"{host}.log"

    # The end

    def show_logs(self) -> None:
        """Print which agents have ended, and the last lines of all logs."""
        for name, agent in self._agents.items():
            if agent.poll() is not None:
                self._screen.say(f"The agent of {name} has ended with exit code {agent.returncode}.")
        for name in self._agents:
            if self.log(name).exists():
                self._screen.say(f"\nThe log of {name} ends:")
                for line in self.log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]:
                    self._screen.say(f"  {line}")

    def keep(self, doors: Iterable[str], questions: Iterable[str]) -> None:
        """Leave everything running; print how to enter the namespaces *doors*, commands to try, and how to stop it."""
        (self.folder / "kept").touch()
        self.say("The demo is still running.  Enter a host, or a place behind it:\n")
        for name in doors:
            self.say(f"  ip netns exec {self.full(name)} bash")
        self.say("\nAsk:\n")
        for question in questions:
            self.say(f"  ip netns exec {self.name}-{question}")
        self.say(
            f"\nThe peers file, the keys and the logs are in {self.folder}.  Stop and remove everything:\n"
        )
        self.say(f"  scripts/demo --stop {self.name}")

    def before_removal(self, *command: str | Path) -> None:
        """Run *command* before anything is removed, in the process that removes it."""
        with (self.folder / "before-removal").open("a") as file:
            file.write(json.dumps([str(word) for word in command]) + "\n")

    def _run_before_removal(self) -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            for line in (self.folder / "before-removal").read_text().splitlines():
                subprocess.run(
                    json.loads(line),
                    capture_output=True,
                    check=False,
                    timeout=PATIENCE,
                    stdin=subprocess.DEVNULL,
                )

    def remove(self) -> None:
        """End the processes and remove the namespaces and the folder, as far as they exist."""
        self._run_before_removal()
        namespaces = [path for path in _listed(NAMESPACES) if _name_of(path) == self.name]
        agents = set[int]()
        with contextlib.suppress(OSError, ValueError):
            agents.update(json.loads((self.folder / "agents.json").read_text()))
        agents.update(agent.pid for agent in self._agents.values())
        # The id may belong to another process by now: only processes in our namespaces are ended.
        _signal(agents & _pids_in(namespaces), signal.SIGTERM)
        self._wait_gone(lambda: agents & _pids_in(namespaces))
        _signal(_pids_in(namespaces), signal.SIGKILL)
        for process in self._processes:
            process.kill()  # no effect if it was reaped
        self._wait_gone(lambda: _pids_in(namespaces))
        for process in self._processes:
            process.wait()
        for path in namespaces:
            with contextlib.suppress(
                FileNotFoundError
            ):  # two demos may clean up after a killed one at the same time
                inode = path.stat().st_ino
                for left in CONTROL_SOCKETS.glob(f"*.{inode}.*"):  # of agents that were killed
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
            time.sleep(0.05)


def _text(command: tuple[str | Path, ...]) -> str:
    words = [str(word) for word in command]
    if words[:3] == ["ip", "netns", "exec"]:
        words = words[4:]
    return " ".join([Path(words[0]).name, *words[1:]])


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _name_of(path: Path) -> str | None:
    match = NAME.fullmatch(path.name)
    return match[1] if match else None


def _pids_in(namespaces: list[Path]) -> set[int]:
    wanted, pids = set[int](), set[int]()
    for path in namespaces:
        with contextlib.suppress(FileNotFoundError):
            wanted.add(path.stat().st_ino)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            if (process / "ns" / "net").stat().st_ino in wanted:
                pids.add(int(process.name))
    return pids


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def known() -> dict[str, str]:
    """Return each demo of this machine and whether it is ``kept``, ``at work`` or ``dead`` (it was killed)."""
    demos = {}
    for path in (*_listed(FOLDERS), *_listed(NAMESPACES)):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        folder = FOLDERS / match[1]
        if folder.exists() and (folder.is_symlink() or folder.stat().st_uid != 0):
            continue
        otherwise = (
            "at work" if _is_demo(int(match[2])) else "dead"
        )  # checked first, because it may be ending
        demos[match[1]] = "kept" if (folder / "kept").exists() else otherwise
    return demos


def _is_demo(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(program in command for program in PROGRAMS)


def new(screen: Screen, interruptions: Interruptions) -> Stage:
    """Return a stage with its own folder; the remains of killed demos are removed."""
    for name, state in known().items():
        if state == "dead":
            Stage(name, screen, interruptions).remove()
    for number in itertools.count(1):
        stage = Stage(
            f"overlay-demo-{os.getpid()}" + (f".{number}" if number > 1 else ""), screen, interruptions
        )
        with contextlib.suppress(FileExistsError):
            is_first = not CONTROL_SOCKETS.exists()
            stage.folder.mkdir(mode=0o700)
            if is_first:
                (stage.folder / "first").touch()
            return stage
    raise AssertionError
