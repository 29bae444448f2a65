"""Run random stories through both packet paths: everything observable must be the same.

    scripts/fuzz both [--seconds N] [--inputs N] [--seed N]

An input is a packet that a path reads from its tun, or a datagram that it receives: of those that the kernel hands over
as one, each counts.  Both paths get each of them.  A story whose outcomes differ is shortened and kept in
tests/corpus/both.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import logging
import math
import random
import sys
import time
from dataclasses import dataclass

from overlay.forwarding import native
from tests import both_paths
from tests.both_paths import (
    CLEAR_KINDS,
    KINDS,
    SERVICE_KINDS,
    TAP_CLEAR_KINDS,
    TAP_KINDS,
    TAPS_IN_THE_CLEAR,
    Story,
)
from tests.fuzz.target import CORPUS
from tests.network import Network

LONGEST = 300  # steps of a story
STEP = 7  # bytes of one
PRESSED_KINDS = (*CLEAR_KINDS, "press")  # which takes longer than all others
BY = {
    "wireguard": KINDS,
    "udp": PRESSED_KINDS,
    "vxlan": PRESSED_KINDS,
    "geneve": PRESSED_KINDS,
    "services": SERVICE_KINDS,
    "ipip": PRESSED_KINDS,
    "gre": PRESSED_KINDS,
    "gre with a key": PRESSED_KINDS,
    "gre with all": PRESSED_KINDS,
    "tap": TAP_KINDS,
    **dict.fromkeys(TAPS_IN_THE_CLEAR, TAP_CLEAR_KINDS),
}
# Kinds that were added after stories had been saved: at the end, because saved stories name kinds by position.
LATER = ("crowd", "clients", "speak", "roam", "fix", "wait", "press")
NAMES = (*dict.fromkeys(kind for kinds in BY.values() for kind in kinds if kind not in LATER), *LATER)
REPORTED = 60  # seconds between two lines
# How often each kind is drawn: more often those that produce many inputs cheaply.
WEIGHTS = {
    "flood": 6,
    "forge": 4,
    "forge_unit": 4,
    "full_train": 4,
    "run": 6,
    "again": 3,
    "lose": 0.3,
    "press": 0.3,
    "merge": 0.3,
}


@dataclass(frozen=True)
class Tale:
    """A story's script.  As bytes, it is flags, four bytes of the seed, and STEP bytes for each step."""

    has_gro: bool
    is_bulk: bool
    seed: int
    steps: tuple[tuple[str, int, int, int], ...]
    by: str = "wireguard"

    @classmethod
    def parse(cls, data: bytes) -> Tale:
        """Return the tale that any bytes encode; unknown kinds are left out."""
        head, rest = data[:5].ljust(5, b"\0"), data[5:]
        steps = []
        for at in range(0, len(rest) - STEP + 1, STEP):
            kind, who = rest[at], rest[at + 1]
            size, detail = rest[at + 2 : at + 5], rest[at + 5 : at + 7]
            if kind < len(NAMES):
                steps.append((NAMES[kind], who, int.from_bytes(size, "big"), int.from_bytes(detail, "big")))
        by = list(BY)[(head[0] >> 2) % len(BY)]
        return cls(bool(head[0] & 1), bool(head[0] & 2), int.from_bytes(head[1:], "big"), tuple(steps), by)

    def build(self) -> bytes:
        """Return the bytes from which parse() makes an equal tale."""
        data = bytes([self.has_gro | self.is_bulk << 1 | list(BY).index(self.by) << 2]) + self.seed.to_bytes(
            4, "big"
        )
        for kind, who, size, detail in self.steps:
            data += bytes([NAMES.index(kind), who]) + size.to_bytes(3, "big") + detail.to_bytes(2, "big")
        return data

    def tell(self, **how):
        """Return the outcomes with Python and with the compiled path."""
        how |= {"has_gro": self.has_gro, "is_bulk": self.is_bulk, "by": self.by}
        return both_paths.tell(self.steps, self.seed, **how)


class Trains(Network):
    """A network that carries what leaves in one send as one, unless it is to look at each datagram."""

    inputs = 0  # of all stories, by both paths

    def send_train(self, flight, size, sender="?"):
        data, now = flight.datagram, self.clock.now
        has_dice = self.loss or self.reorder or self.duplicate
        if not data or has_dice or not all(each.has_gro for each in self.nodes):
            super().send_train(dataclasses.replace(flight, segment=0), size, sender)
            return
        flow = (flight.source, flight.destination) if self.goes_by_flow else ()
        digest = self._digest_of(flow)
        for at in range(0, len(data), size):  # the same however many sends they leave in
            datagram = data[at : at + size]
            digest.update(repr((now, *flight.head, len(datagram))).encode())
            digest.update(datagram)
        self._fly(dataclasses.replace(flight, segment=size if size < len(data) else 0), flow)

    def send(self, flight, sender="?"):
        if flight.segment:
            self.send_train(flight, flight.segment, sender)
        else:
            super().send(flight, sender)

    def deliver(self):
        before = self._waiting()
        super().deliver()
        Trains.inputs += self._waiting() - before

    def _waiting(self):
        """Return how many datagrams are in the sockets."""
        sockets = [socket for node in self.nodes for socket in node.sockets]
        return sum(
            -(-len(each.datagram) // (each.segment or math.inf)) or 1 for one in sockets for each in one.inbox
        )

    def _note(self, flight, fate):
        """Record no trace: a failing story is run again."""


class Counted(Story):
    """A story whose nodes do not examine what is written to their tuns."""

    def __init__(self, *arguments, **how):
        super().__init__(*arguments, network=Trains, **how)
        for node in self.nodes:
            node.tun.packets_of = lambda data, header: ()

    def do(self, kind, *numbers):
        waiting = self._packets()
        super().do(kind, *numbers)
        Trains.inputs += max(self._packets() - waiting, 0)

    def _packets(self):
        return sum(len(node.tun.outgoing) for node in self.nodes)


def draw(chance: random.Random) -> Tale:
    """Return a random tale."""
    by = chance.choices(list(BY), [4] + [1] * (len(BY) - 1))[0]
    drawn = chance.choices(BY[by], [WEIGHTS.get(kind, 1) for kind in BY[by]], k=chance.randint(1, LONGEST))
    steps = [(kind, chance.randrange(2), chance.randrange(70_000), chance.getrandbits(16)) for kind in drawn]
    return Tale(chance.random() < 0.8, chance.random() < 0.7, chance.getrandbits(32), tuple(steps), by)


def differs(tale: Tale) -> bool:
    """Return whether the outcomes of the two paths differ, or one of them does not finish."""
    try:
        python, compiled = tale.tell(story=Counted)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is looked for
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return True
    return python != compiled


def shorten(tale: Tale) -> Tale:
    """Return a shorter tale that still differs."""
    size = len(tale.steps)
    while size:
        at = 0
        while at < len(tale.steps):
            less = dataclasses.replace(tale, steps=tale.steps[:at] + tale.steps[at + size :])
            if differs(less):
                tale = less
            else:
                at += size
        size //= 2
    return tale


def main() -> int:
    """Run stories until the time is over or there were enough inputs; return 1 if the outcomes of one differed."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz both", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long (60)")
    parser.add_argument("--inputs", type=float, default=math.inf, metavar="N", help="stop behind so many")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (0)")
    options = parser.parse_args()
    if native.core is None:
        print(f"scripts/fuzz both: there is no compiled packet path: {native.missing}", file=sys.stderr)
        return 1
    logging.disable(logging.CRITICAL)
    chance, begun = random.Random(options.seed), time.monotonic()
    stories, told, failed = 0, begun, 0
    while time.monotonic() < begun + options.seconds and Trains.inputs / 2 < options.inputs:
        tale = draw(chance)
        stories += 1
        if differs(tale):
            failed += 1
            data = shorten(tale).build()
            path = CORPUS / "both" / hashlib.sha256(data).hexdigest()[:16]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"the paths differ: kept {path}", flush=True)
        if time.monotonic() >= told + REPORTED:
            told = time.monotonic()
            print(_summary(stories, told - begun), flush=True)
    print(_summary(stories, time.monotonic() - begun), flush=True)
    return bool(failed)


def _summary(stories: int, seconds: float) -> str:
    return f"{Trains.inputs / 2:.0f} inputs through each path in {stories} stories, {seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
