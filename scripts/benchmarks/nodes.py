"""The hosts that a contender joins, and the underlay between them."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.netns.topology import Lab, Namespace

ATTACHED = "attached"  # a place: containers by CNI; those of "hosts" and "containers" are behind bridges
PATIENCE = 5.0  # seconds for a program to end by itself


@dataclass(frozen=True)
class Underlay:
    """The underlay that joins the two hosts of a pair."""

    mtu: int = 1500
    offloads: bool = True  # super-packets pass the veth whole
    loss: float = 0.0  # percent of the frames, which then have wire size
    wireguard_go: str = "wireguard-go"
    segmented: bool = False  # with offloads: the sender cuts UDP super-packets, the receiver joins them
    delay_ms: float = 0.0  # added to the round trip by a relay; frames then have wire size


@dataclass
class Node:
    """One host: its namespace, its container, and the programs that carry its traffic."""

    host: Namespace
    container: Namespace
    number: int
    private_key: str
    public_key: str
    address: str = ""  # at which the other host reaches this one; the contender may choose another
    programs: list[subprocess.Popen[str]] = field(default_factory=list)
    checkout: Path | None = None  # another copy of this project, whose agent runs here; None is this one

    def __post_init__(self) -> None:
        self.address = self.address or self.overlay_address

    @property
    def overlay_address(self) -> str:
        return f"10.244.{self.number}.0"

    @property
    def underlay_address(self) -> str:
        return f"192.0.2.{self.number}"

    @property
    def subnet(self) -> str:
        """Where the containers are."""
        return f"10.244.{self.number}.0/24"

    @property
    def processes(self) -> list[int]:
        """The running programs, each followed by its children."""
        running = [program.pid for program in self.programs if program.poll() is None]
        return [each for pid in running for each in (pid, *descendants(pid))]

    def start(self, *command: str | Path, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a program that carries traffic of this host.  Its output goes to *log*."""
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("w")) if log is not None else subprocess.DEVNULL
            program = self.host.popen(
                *command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        self.programs.append(program)
        return program

    def stop(self) -> None:
        """End the programs as an operator would, so that they remove what they made."""
        running = [program for program in self.programs if program.poll() is None]
        for program in running:
            program.terminate()
        for program in running:
            with contextlib.suppress(subprocess.TimeoutExpired):  # the lab kills it
                program.wait(PATIENCE)


@dataclass
class Pair:
    """Two nodes joined by a contender."""

    name: str
    a: Node
    b: Node
    more_peers: int = 0  # in the table of a contender that has one, besides these two
    attached: tuple[Namespace, Namespace, str] | None = (
        None  # containers of both hosts and the address of the second one, if agents attach them
    )
    ready_after: float | None = None  # seconds from the start of both ends to the first answered ping

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b

    @property
    def label(self) -> str:
        """Return the name of the pair in tables and files."""
        return called(self.name, self.more_peers, is_before=self.a.checkout is not None)

    @property
    def processes(self) -> list[int]:
        return [*self.a.processes, *self.b.processes]

    def ends(self, place: str) -> tuple[Namespace, Namespace, str]:
        """Return the sender, the receiver, and the receiver's address."""
        if place == "hosts":
            return self.a.host, self.b.host, self.b.address
        if place == ATTACHED:
            assert self.attached is not None
            return self.attached
        return self.a.container, self.b.container, f"10.244.{self.b.number}.2"


def called(name: str, more_peers: int, *, is_before: bool = False) -> str:
    """Return the name in tables and files of a contender with *more_peers* further peers in its table.

    With *is_before* it is the contender of another copy of this project.
    """
    name = f"{name} before" if is_before else name
    return f"{name} +{more_peers} peers" if more_peers else name


def make_node(lab: Lab, name: str, number: int, mtu: int = 1500) -> Node:
    """Return a host with a container behind a bridge of that *mtu*; its programs end before the lab is removed."""
    host = lab.namespace(name)
    container = lab.container(
        host, f"{name}c", f"10.244.{number}.2/24", gateways=(f"10.244.{number}.1",), mtu=mtu
    )
    private = host.run("wg", "genkey")
    node = Node(host, container, number, private.strip(), host.run("wg", "pubkey", stdin=private).strip())
    lab.on_exit(node.stop)
    return node


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and their children."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]
