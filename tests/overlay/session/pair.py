"""Nodes in memory that shake hands over a network with a clock of its own.

A story reads: ``pair = Pair(); pair.handshake(); pair.advance(120); pair.a.want(pair.b)``.  Each node has a stand-in
for its forwarder, which checks mac1 (and mac2 if ``is_loaded``), keeps installed keypairs, and records every output.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.crypto.cookies import CookieChecker
from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError
from overlay.session.constants import Timing
from overlay.session.outputs import (
    Answered,
    Completed,
    Forget,
    GiveUp,
    InstallKeypair,
    Output,
    Retrying,
    Transmit,
    Wipe,
)
from overlay.session.sessions import Sessions
from overlay.wire.messages import TYPE_COOKIE_REPLY, message_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.wire.addresses import Sockaddr

START = 1000.0
WALL_START_NS = 1_700_000_000 * 10**9


def seeded(seed: object) -> Callable[[int], bytes]:
    """Entropy that repeats for an equal *seed*."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    return entropy


@dataclass
class Clock:
    """Two clocks that a test sets: seconds since boot, and wall time."""

    now: float = START
    wall: int = WALL_START_NS

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * 1e9)

    def wall_ns(self) -> int:
        return self.wall


@dataclass
class Flight:
    """One datagram under way."""

    source: Sockaddr
    destination: Sockaddr
    datagram: bytes

    @property
    def kind(self) -> int:
        return message_type(self.datagram)


@dataclass
class Node:
    """Sessions with their edge and their forwarder, as simple as possible."""

    name: str
    address: Sockaddr
    pair: Pair
    seed: object
    timing: Timing
    key: PrivateKey = field(init=False)
    sessions: Sessions = field(init=False)
    checker: CookieChecker = field(init=False)
    is_loaded: bool = False
    outputs: list[Output] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    keypairs: dict[int, InstallKeypair] = field(default_factory=dict)
    endpoints: dict[int, Sockaddr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = PrivateKey.generate(seeded(f"key of {self.name}"))
        self.restart()

    def restart(self) -> None:
        """Restart with the same private key and nothing else."""
        entropy = seeded((self.seed, self.name, self.pair.clock.now))
        self.sessions = Sessions(
            self.key, entropy=entropy, wall_ns=self.pair.clock.wall_ns, constants=self.timing
        )
        self.checkers = [CookieChecker(self.key.public, entropy)]
        self.keypairs.clear()

    def use_keys(self, *keys: PrivateKey) -> None:
        """Answer to *keys*."""
        self.sessions.use_keys(*keys)
        self.checkers = [CookieChecker(key.public, seeded((self.seed, key.public))) for key in keys]

    def know(self, number: int, other: Node, psk: bytes | None = None) -> None:
        self.sessions.add_peer(number, other.key.public, psk)
        self.endpoints[number] = other.address

    def want(self, number: int = 1) -> None:
        self.carry_out(self.sessions.want(number, self.pair.clock.now))

    def carry_out(self, outputs: list[Output]) -> None:
        self.outputs += outputs
        for output in outputs:
            match output:
                case Transmit(peer, datagram, endpoint):
                    destination = endpoint or self.endpoints[peer]
                    self.pair.flights.append(Flight(self.address, destination, datagram))
                case InstallKeypair():
                    self.keypairs[output.local_index] = output
                    self.endpoints[output.peer] = output.endpoint
                case Wipe(peer):
                    self.keypairs = {i: k for i, k in self.keypairs.items() if k.peer != peer}
                case Forget(_, indices):
                    self.keypairs = {i: k for i, k in self.keypairs.items() if i not in indices}
                case GiveUp() | Answered() | Completed() | Retrying():
                    pass

    def receive(self, flight: Flight) -> None:
        checker = next((each for each in self.checkers if each.check_mac1(flight.datagram)), None)
        if flight.kind != TYPE_COOKIE_REPLY and checker is None:
            self.refused.append("mac1 at the forwarder")
            return
        now, source = self.pair.clock.now, repr(flight.source).encode()
        if (
            self.is_loaded
            and flight.kind != TYPE_COOKIE_REPLY
            and not checker.check_mac2(flight.datagram, source, now)
        ):
            reply = checker.make_reply(flight.datagram, source, now)
            self.pair.flights.append(Flight(self.address, flight.source, reply))
            return
        try:
            outputs = self.sessions.receive(flight.datagram, flight.source, now)
        except PacketError as refusal:
            self.refused.append(refusal.reason)
            return
        self.carry_out(outputs)

    def of(self, kind: type[Output]) -> list[Output]:
        """Everything of one *kind* that came out so far."""
        return [output for output in self.outputs if isinstance(output, kind)]


class Pair:
    """Nodes a and b, which know each other as peer 1, the network between them, and the clock."""

    def __init__(
        self,
        *,
        seed: object = 0,
        timing: Timing | None = None,
        psk_a: bytes | None = None,
        psk_b: bytes | None = None,
    ) -> None:
        self.clock = Clock()
        self.flights: list[Flight] = []
        self.lose: Callable[[Flight], bool] = lambda flight: False
        timing = timing or Timing()
        self.a = Node("a", ("192.0.2.1", 1), self, seed, timing)
        self.b = Node("b", ("192.0.2.2", 2), self, seed, timing)
        self.a.know(1, self.b, psk_a)
        self.b.know(1, self.a, psk_b)

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b

    def deliver(self, flight: Flight) -> None:
        """Deliver *flight* to the node with its destination; if there is none, it is lost."""
        for node in self.nodes:
            if node.address == flight.destination:
                node.receive(flight)

    def settle(self) -> None:
        """Deliver, in order, everything that is in flight and all immediate consequences."""
        while self.flights:
            flight = self.flights.pop(0)
            if not self.lose(flight):
                self.deliver(flight)

    def advance(self, seconds: float) -> None:
        """Let time pass: every deadline is met on time, and every datagram is delivered immediately."""
        end = self.clock.now + seconds
        while True:
            self.settle()
            due = min(node.sessions.next_deadline() for node in self.nodes)
            if due > end:
                break
            self.clock.advance(max(0.0, due - self.clock.now))
            for node in self.nodes:
                node.carry_out(node.sessions.handle_deadline(self.clock.now))
        self.clock.advance(end - self.clock.now)

    def jump(self, seconds: float) -> None:
        """Let time pass with both nodes asleep, as in suspend."""
        self.clock.advance(seconds)
        self.advance(0.0)

    def handshake(self) -> tuple[InstallKeypair, InstallKeypair]:
        """Complete one handshake that a begins; return a's keypair and b's."""
        self.a.want()
        self.settle()
        return list(self.a.keypairs.values())[-1], list(self.b.keypairs.values())[-1]

    def is_connected(self) -> bool:
        """Return whether some keypair is held at both ends, its keys crossed."""
        return any(
            match(mine, theirs) for mine in self.a.keypairs.values() for theirs in self.b.keypairs.values()
        )


def match(mine: InstallKeypair, theirs: InstallKeypair) -> bool:
    """Return whether two keypairs are the two ends of one session."""
    return (
        (mine.local_index, mine.remote_index) == (theirs.remote_index, theirs.local_index)
        and (mine.send_key, mine.receive_key) == (theirs.receive_key, theirs.send_key)
        and mine.is_initiator != theirs.is_initiator
    )


def snapshot(value: object, depth: int = 0) -> object:
    """Return everything that *value* holds, recursively, in a form that compares; opaque values stand for
    themselves.
    """
    if isinstance(value, bytearray):
        return bytes(value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return "nan" if isinstance(value, float) and math.isnan(value) else value
    if isinstance(value, dict):
        return {key: snapshot(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(item, depth + 1) for item in value]
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, PrivateKey) or depth > 20 or not type(value).__module__.startswith("overlay"):
        return id(value)
    names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
    # Shared by all, with references back; a cache, which a refused message may fill; and the counters of refusals.
    left_out = {"_node", "_secrets", "_refused", "_doubted_at", "_outdated", "_outdated_at", "_behind"}
    return {name: snapshot(getattr(value, name), depth + 1) for name in names if name not in left_out}
