"""Networks for tests: hosts, containers and links, as network namespaces of this machine.

    with Lab() as lab:
        internet = lab.switch("internet")
        paris, tokyo = lab.namespace("paris"), lab.namespace("tokyo")
        lab.plug(internet, paris.end("eth0", "192.0.2.1/24"))
        lab.plug(internet, tokyo.end("eth0", "192.0.2.2/24"))
        lab.container(paris, "web", "10.244.1.2/24", gateway="10.244.1.1")
        paris.run("ping", "-c1", "192.0.2.2")

Whatever happens, leaving the block ends the processes that were started in these namespaces and removes them.  A run
that was killed outright leaves them, with its process id in their names: the next Lab removes what has no process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import ipaddress
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.netns import modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from tests.netns.forks import Forked

ROOT = Path(__file__).parents[2]
NAMESPACES = Path("/run/netns")
# Namespaces are called PREFIX, the process id, "-" and the name in the test.
PREFIX = os.environ.get("LAB_PREFIX", "lab")
CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MNT_DETACH = 1 << 12, 2  # linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
IFREQ_FLAGS = struct.Struct("16sH22x")  # linux/if.h: name, flags
IFF_UP, IFF_RUNNING = 0x1, 0x40
ETH_P_ALL = 0x0003  # linux/if_ether.h
SEGMENTATION = ("tso", "gso", "gro", "tx-udp-segmentation", "generic-receive-offload")
PATIENCE = 60.0  # seconds for one command, or for a condition: this machine may be slow and busy

_libc = ctypes.CDLL(None, use_errno=True)


class CommandError(AssertionError):
    """A command in a namespace failed; the text contains its output."""


@dataclass(frozen=True)
class End:
    """One end of a cable: an interface of that name, with these addresses, in the namespace."""

    namespace: Namespace
    interface: str
    addresses: tuple[str, ...] = ()


class Namespace:
    """One network namespace: a host, a container, a switch."""

    def __init__(self, name: str, full_name: str, lab: Lab) -> None:
        self.name = name
        self.full_name = full_name
        self.lab = lab

    def __repr__(self) -> str:
        return f"<{self.full_name}>"

    @property
    def inode(self) -> int:
        """The number by which the kernel identifies the namespace."""
        return (NAMESPACES / self.full_name).stat().st_ino

    user: dict[str, list[str]] | None = None
    """Who a process is that is forked into it, for tests.netns.ordinary; None for root."""

    def end(self, interface: str, *addresses: str) -> End:
        """Return an end for Lab.veth() or Lab.plug(); addresses as ``192.0.2.1/24``."""
        return End(self, interface, addresses)

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = PATIENCE, stdin: str = ""
    ) -> str:
        """Return the output of *command*.  Raises CommandError if it failed, unless told not to check."""
        done = self.completed(*command, timeout=timeout, stdin=stdin)
        if check and done.returncode != 0:
            raise CommandError(
                f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def completed(
        self, *command: str | Path, timeout: float = PATIENCE, stdin: str = "", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Return the finished *command* with exit code, stdout and stderr."""
        process = self.popen(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except BaseException:
            self.lab.end_process(process)
            raise
        self.lab.processes.remove(process)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start *command*, in text mode and in a process group of its own, which the lab ends if necessary."""
        options.setdefault("text", True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.full_name, *command],
            env=environment,
            start_new_session=True,
            **options,
        )
        self.lab.processes.append(process)
        return process

    def python(self, code: str, *arguments: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Return the output of the Python program *code*, which can import this project."""
        return self.run(sys.executable, "-c", code, *arguments, check=check, timeout=timeout)

    def ip(self, *commands: str) -> None:
        """Run several commands of ``ip``, such as ``link set eth0 up``, with one process.  Raises CommandError."""
        done = subprocess.run(
            ["ip", "-n", self.full_name, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode != 0:
            raise CommandError(f"{self.name}: ip {'; '.join(commands)}: {done.stderr.strip()}")

    def has(self, interface: str) -> bool:
        """Return whether *interface* is in the namespace."""
        with self.entered():
            return any(name == interface for _, name in socket.if_nameindex())

    def is_running(self, interface: str) -> bool:
        """Return whether the kernel has noticed that *interface* is up and has a carrier, and uses it."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, IFREQ_FLAGS.pack(interface.encode(), 0))
        return bool(IFREQ_FLAGS.unpack(answer)[1] & IFF_RUNNING)

    def sysctl(self, *settings: str) -> None:
        """Set sysctls of the network, such as ``net.ipv4.ip_forward=1``."""
        with self.entered():
            for setting in settings:
                name, _, value = setting.partition("=")
                Path("/proc/sys", *name.split(".")).write_text(value)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace inside the block.  Sockets opened there remain there."""
        with open("/proc/thread-self/ns/net") as home, (NAMESPACES / self.full_name).open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def sniff(self, interface: str) -> Sniffer:
        """Return a recorder of the frames that pass *interface* from now on."""
        with self.entered():
            return Sniffer(interface, self.lab)

    def dump(self) -> dict[str, list[str]]:
        """Return all addresses, routes, rules and network settings, for a comparison before and after."""
        state = {
            command: sorted(_ip("-n", self.full_name, *command.split()).splitlines())
            for command in (
                "link show",
                "-4 address show",
                "-6 address show",
                "-4 route show table all",
                "-6 route show table all",
                "-4 rule show",
                "-6 rule show",
            )
        }
        # The other files count or age by themselves.
        volatile = "stat|nf_conntrack_count|neigh.*retrans_time"
        settings = self.run(
            "sh", "-c", f"cd /proc/sys/net && grep -rs . ipv4 ipv6 core | grep -Ev '{volatile}'", check=False
        )
        state["sysctl"] = sorted(settings.splitlines())
        lines = state["-6 route show table all"]
        state["-6 route show table all"] = [re.sub(r" expires \d+sec", "", line) for line in lines]
        return state


class Sniffer:
    """The frames that passed an interface."""

    def __init__(self, interface: str, lab: Lab) -> None:
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
        )
        lab.on_exit(self._socket.close)
        self._socket.bind((interface, ETH_P_ALL))

    def frames(self) -> list[bytes]:
        """Return what has passed since the last call, with Ethernet headers if the link has them."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(self._socket.recv(1 << 17))
        return frames


class Lab:
    """A set of namespaces that exists for the length of a with block."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str] | Forked] = []
        self._namespaces: list[Namespace] = []
        self._modules: list[str] = []
        self._on_exit = contextlib.ExitStack()
        self._indexes = itertools.count(1000, 2)
        self._ports = itertools.count()
        self._previous_handler: Any = None

    def __enter__(self) -> Self:
        sweep_leftovers()
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, _exit_at_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and remove the namespaces.  A second call does nothing."""
        while True:
            try:
                self._on_exit.close()
                while self.processes:
                    self.end_process(self.processes[-1])
                _kill_all_in([each.full_name for each in self._namespaces])
                while self._namespaces:
                    _delete(self._namespaces[-1].full_name)
                    self._namespaces.pop()
                while self._modules:
                    modules.unload(self._modules.pop())
                break
            except KeyboardInterrupt:  # even an interrupted cleanup leaves nothing behind
                continue
        atexit.unregister(self.close)
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None

    def on_exit(self, action: Callable[[], object]) -> None:
        """Call *action* before the namespaces are removed."""
        self._on_exit.callback(action)

    def require_module(self, name: str) -> None:
        """Load the kernel module *name* until the namespaces are gone; skip the test, naming it, if it does not
        exist.
        """
        if modules.load(name):
            self._modules.append(name)

    def end_process(self, process: subprocess.Popen[str] | Forked) -> None:
        """Kill *process* with its process group, if it runs, and close the pipes to it."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its forkserver has reaped it since
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if process in self.processes:
            self.processes.remove(process)

    def namespace(self, name: str) -> Namespace:
        """Return a new namespace in which only the loopback is up."""
        namespace = Namespace(name, f"{PREFIX}{os.getpid()}-{name}", self)
        self._namespaces.append(namespace)
        _add(namespace.full_name)
        # IPv6 addresses are usable at once: tests do not wait two seconds for duplicate address detection.
        namespace.sysctl("net.ipv6.conf.default.accept_dad=0")
        return namespace

    def veth(
        self, one: End, other: End, mtu: int = 1500, offloads: bool = True, *, bridge: str | None = None
    ) -> None:
        """Join two ends with a cable, and return once the kernel uses it; with *bridge*, *other* becomes a port of it.

        Without *offloads* each frame on it has wire size, as netfilter and a capture then see it; with them, trains of
        segments pass whole.
        """
        # Two ends that have the same index, each in its namespace, would learn only within a second that they are
        # joined: the kernel hurries with virtual links, which it knows by the index of the other end.
        index = next(self._indexes)
        far = f"peer name {other.interface} index {index + 1} netns {other.namespace.full_name} mtu {mtu}"
        making = [f"link add {one.interface} index {index} mtu {mtu} type veth {far}"]
        if not offloads:
            one.namespace.ip(*making)
            making.clear()
            settings = [word for feature in SEGMENTATION for word in (feature, "off")]
            for end in (one, other):
                end.namespace.run("ethtool", "-K", end.interface, *settings, check=False)
        for end in (one, other):
            commands = [*making, *(_adding(each, end.interface) for each in end.addresses)]
            making.clear()
            commands.append(f"link set {end.interface} up")
            if bridge is not None and end is other:
                commands.append(f"link set {end.interface} master {bridge}")
            end.namespace.ip(*commands)
        used = [(one.namespace, one.interface), (other.namespace, other.interface)]
        if bridge is not None:
            used.append((other.namespace, bridge))
        for namespace, interface in used:
            in_use = functools.partial(namespace.is_running, interface)
            wait_until(in_use, PATIENCE, f"{interface} of {namespace.name} to be in use")

    def bridge(self, namespace: Namespace, name: str, *addresses: str, mtu: int = 1500) -> None:
        """Create a bridge in *namespace*; attach() adds the interfaces of ends to it."""
        namespace.ip(
            f"link add {name} mtu {mtu} type bridge forward_delay 0",
            *(_adding(each, name) for each in addresses),
            f"link set {name} up",
        )

    def attach(self, namespace: Namespace, bridge: str, interface: str) -> None:
        """Make *interface* a port of *bridge*."""
        namespace.ip(f"link set {interface} master {bridge}")

    def switch(self, name: str, mtu: int = 1500) -> Namespace:
        """Return a namespace that is only a switch, for plug(): an underlay or a LAN."""
        switch = self.namespace(name)
        self.bridge(switch, "switch", mtu=mtu)
        return switch

    def plug(self, switch: Namespace, end: End, mtu: int = 1500, offloads: bool = True) -> str:
        """Connect *end* to *switch* with a cable; return the name of the port there."""
        port = f"port{next(self._ports)}"
        self.veth(end, switch.end(port), mtu, offloads, bridge="switch")
        return port

    def container(
        self,
        host: Namespace,
        name: str,
        *addresses: str,
        gateways: tuple[str, ...],
        bridge: str = "br0",
        mtu: int = 1500,
    ) -> Namespace:
        """Return a container on *host*, with a default route by each of *gateways*: the addresses of the host's bridge.

        The bridge is made with the first container on it, with the prefix lengths of *addresses*; the host forwards.
        """
        container = self.namespace(name)
        if not host.has(bridge):
            lengths = {ipaddress.ip_interface(each).version: each.partition("/")[2] for each in addresses}
            own = [f"{gateway}/{lengths[ipaddress.ip_address(gateway).version]}" for gateway in gateways]
            self.bridge(host, bridge, *own, mtu=mtu)
        host.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.veth(container.end("eth0", *addresses), host.end(f"to-{name}"[:15]), mtu, bridge=bridge)
        container.ip(*(f"route add default via {gateway}" for gateway in gateways))
        return container


def wait_until(
    condition: Callable[[], object], timeout: float = PATIENCE, what: str = "the condition"
) -> None:
    """Return once *condition* is true; fail if it is not within *timeout* seconds."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > timeout:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        # Each check costs processor time that others need, here and where the answer comes from.
        time.sleep(min(0.02 + waited / 10, 0.2))


def missing_requirement() -> str | None:
    """Return what this machine lacks for tests in namespaces, as a reason to skip them; None if nothing."""
    if os.geteuid() != 0:
        return "namespace tests need root"
    if not Path("/dev/net/tun").exists():
        return "namespace tests need /dev/net/tun"
    for program in ("ip", "ping", "ethtool"):
        if shutil.which(program) is None:
            return f"namespace tests need the program {program}"
    probe = f"{PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"namespace tests need network namespaces: {made.stderr.strip()}"
    _remove(probe)
    return None


def sweep_leftovers() -> None:
    """Remove the namespaces of runs that were killed."""
    if not NAMESPACES.is_dir():
        return
    for path in NAMESPACES.iterdir():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(\d+)-.*", path.name)
        if match and not Path("/proc", match[1]).exists():
            _remove(path.name)


@pytest.fixture(scope="session")
def _requirements() -> str | None:
    return missing_requirement()


@pytest.fixture
def lab(_requirements: str | None) -> Iterator[Lab]:
    """A lab for one test.  The test is skipped, with the reason, if the machine has no namespaces."""
    if _requirements:
        pytest.skip(_requirements)
    with Lab() as made:
        yield made


def _remove(full_name: str) -> None:
    """Kill what runs in the namespace and remove it."""
    _kill_all_in([full_name])
    _delete(full_name)


def _kill_all_in(full_names: list[str]) -> None:
    """Kill the processes in these namespaces.  One pass over all processes is cheaper than one for each namespace."""
    for pid in _pids_in(full_names):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids_in(full_names: list[str]) -> list[int]:
    """Return the ids of the processes in these namespaces, as ``ip netns pids`` does for one."""
    wanted = set()
    for name in full_names:
        with contextlib.suppress(FileNotFoundError):
            wanted.add((NAMESPACES / name).stat().st_ino)
    found = []
    for name in os.listdir("/proc") if wanted else ():
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.stat(f"/proc/{name}/ns/net").st_ino in wanted:
                    found.append(int(name))
    return found


@functools.cache
def _prepare() -> None:
    """Make ``ip`` create the folder with shared mounts, as it does with a machine's first namespace."""
    first = f"{PREFIX}{os.getpid()}-first"
    subprocess.run(["ip", "netns", "add", first], check=True)
    subprocess.run(["ip", "netns", "delete", first], check=True)


def _add(full_name: str) -> None:
    """Do what ``ip netns add`` does, and set the loopback up: a run makes two thousand, each of which took two
    programs.
    """
    _prepare()
    place = NAMESPACES / full_name
    os.close(os.open(place, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
    with open("/proc/thread-self/ns/net") as home:
        _call("unshare", CLONE_NEWNET)
        try:
            _call("mount", b"/proc/thread-self/ns/net", bytes(place), b"none", MS_BIND, None)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ_FLAGS.pack(b"lo", IFF_UP | IFF_RUNNING))
        finally:
            _setns(home.fileno())


def _delete(full_name: str) -> None:
    """Remove the namespace.  No error here may prevent the rest from being removed."""
    place = NAMESPACES / full_name
    with contextlib.suppress(OSError):  # it may not have been mounted yet
        _call("umount2", bytes(place), MNT_DETACH)
    with contextlib.suppress(OSError):
        place.unlink()


def _adding(address: str, interface: str) -> str:
    return f"address add {address} dev {interface}{' nodad' if ':' in address else ''}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode != 0:
        raise CommandError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _setns(descriptor: int) -> None:
    _call("setns", descriptor, CLONE_NEWNET)


def _call(name: str, *arguments: int | bytes | None) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _exit_at_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
