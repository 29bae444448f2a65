"""Run the same stories through the compiled packet path again and again: its memory must not grow.

    scripts/fuzz leaks [--inputs N] [--rounds N] [--seed N] [--only KIND ...]

Each kind of story has two nodes that live as long as the run.  In a round, packets, units and garbage go both ways,
sessions are renewed, a peer comes and goes, and an end moves.  Then nothing happens until everything has expired.  In
each round there is also another pair of each kind, which is forgotten.  After it, the bytes that are allocated in the
whole process are counted, and the objects of the compiled path.

An input is a packet that is read from a tun, or a datagram that is received.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from overlay.forwarding import native
from overlay.link.messages import RemovePeer, RenewSources
from tests import packets
from tests.both_paths import LANE_KINDS
from tests.fuzz.both import BY, WEIGHTS, Counted, Trains

WARMING = 3  # rounds until all permanent allocations have been made
ROUNDS = 10  # rounds that are compared
STEPS = 60  # of a story; behind ten of them are HANDSHAKES and a BURST of super-packets each way
HANDSHAKES = 10
TRAIN_BYTES = 62_000  # of a super-packet
BURST = 30
QUIET = 1000  # seconds: longer than keys, flows and stations are kept
MOST_GROWTH = 8000  # bytes a round, with 60 handshakes, for each kind of story: caches grow and shrink
EVERY_BYTE = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
KINDS = {**BY, "lanes": LANE_KINDS}


class Usage(ctypes.Structure):
    """What mallinfo2(3) tells."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def allocated() -> int:
    """Return how many bytes malloc() has allocated in this process; with EVERY_BYTE all of them."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Usage
    usage = mallinfo2()
    return int(usage.uordblks + usage.hblkhd)


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def objects() -> Counter[str]:
    """Return how many objects there are of each type of the compiled path."""
    return Counter(
        kind.__name__ for each in gc.get_objects() if "native" in (kind := _native(type(each))).__module__
    )


def _native(kind: type) -> type:
    return next((each for each in kind.__mro__ if each.__module__ == "overlay.forwarding.native"), object)


class Life(Counted):
    """Two nodes, and a third that is a peer of the first during a part of each round."""

    def __init__(self, by: str, seed: int) -> None:
        how = {"lanes": 4} if by == "lanes" else {"by": by}
        super().__init__(True, seed, **how)
        self.seed, self.kinds = seed, KINDS[by]
        self.home = self.nodes[0].addresses[0]
        self.trains = [self._train(*self.nodes), self._train(*self.nodes[::-1])]
        self.third = None
        if not self.is_clear and not self.is_tap:
            self.third = self.world.node("c")
            self.third.know(self.nodes[0])
            self.nodes[0].know(self.third)
            self.nodes[0].tell(RemovePeer(2))

    @staticmethod
    def _train(node, other):
        whole = packets.tcp(bytes(TRAIN_BYTES), source=node.inner(), destination=other.inner())
        packet, virtio = packets.as_super_packet(whole, 1360)
        return virtio + packet

    def round(self, steps: int = STEPS) -> None:
        """Run what happens in each round, and let time pass until it is over."""
        self.chance = random.Random(self.seed)
        self.world.network.random.seed(self.seed)
        weights = [WEIGHTS.get(kind, 1) for kind in self.kinds]
        for number, kind in enumerate(self.chance.choices(self.kinds, weights, k=steps)):
            self.do(kind, *(self.chance.getrandbits(16) for _ in range(3)))
            if number % 10 == 9:
                self.renew(is_away=number % 20 == 9)
        self.rest()

    def renew(self, *, is_away: bool) -> None:
        """Renew sessions, add or remove a peer, move an end away or back, and send much traffic."""
        a = self.nodes[0]
        self.calm()
        if self.third is not None:
            self.come() if is_away else a.tell(RemovePeer(2))
        a.addresses[0] = "198.51.100.7" if is_away else self.home
        a.tell(RenewSources())
        for who in (0, 1):
            self.do("burst", who, 0, 0)
        for _ in range(1 if self.is_clear else HANDSHAKES):
            if not self.is_clear:
                a.want(1)
            for who in (0, 1):
                self.do("singles", who, 60, 3)
            self.world.run(6)
        self.forget_noted()

    def burst(self, node, *_) -> None:
        """Many super-packets follow each other."""
        node.tun.outgoing.extend([self.trains[self.nodes.index(node)]] * BURST)

    def come(self) -> None:
        """The third node is a peer of the first."""
        a, c = self.nodes[0], self.third
        a._tell_peer(2)
        a.want(2)
        for node, other in ((a, c), (c, a)):
            node.send(other, 20)
            node.send_super(other, 30_000)

    def calm(self) -> None:
        """Clear all faults of network, devices and sockets."""
        network = self.world.network
        network.loss = network.reorder = network.duplicate = 0.0
        network.lose = lambda _: False
        for node in self.world.nodes:
            node.tun.error = None
            node.has_gro = True
            for each in node.sockets:
                each.is_full, each.room = False, math.inf
                each.errors.clear()

    def rest(self) -> None:
        """Let time pass until nothing is pending."""
        self.calm()
        self.world.run(QUIET)
        self.seen.clear()
        self.forget_noted()

    def forget_noted(self) -> None:
        """Clear what the simulation has recorded."""
        network = self.world.network
        for noted in (network.sent, network._digests, network._by_flow):
            noted.clear()
        for node in self.world.nodes:
            for noted in (node.log, node.reported, node.tun.writes, node.tun.received):
                noted.clear()
        for node in self.nodes:
            node.told.messages.clear()


def main() -> int:
    """Run stories until there were enough inputs; return 1 if memory or objects leaked."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz leaks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=float, default=1e6, metavar="N", help="stop behind so many (1e6)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"to compare, at least ({ROUNDS})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (0)")
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND",
        help=f"kinds of stories: {', '.join(KINDS)} (all)",
    )  # fmt: skip
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in EVERY_BYTE.items()):
        command = [sys.executable, "-m", "tests.fuzz.leaks", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **EVERY_BYTE})
    if native.core is None:
        print(f"scripts/fuzz leaks: there is no compiled packet path: {native.missing}", file=sys.stderr)
        return 1
    logging.disable(logging.CRITICAL)
    lives = [Life(by, options.seed) for by in options.only]
    begun = time.monotonic()
    counts: list[int] = []
    kinds: list[Counter[str]] = []
    while len(counts) < WARMING + options.rounds or Trains.inputs < options.inputs:
        for life in lives:
            life.round()
        for by in options.only:
            Life(by, options.seed).round(10)
        gc.collect()
        counts.append(allocated())
        kinds.append(objects())
        told = f"{Trains.inputs:.0f} inputs, {counts[-1]} bytes, {resident() >> 20} MiB resident"
        print(f"{told}, {time.monotonic() - begun:.0f} s", flush=True)
    return judge(counts[WARMING - 1 :], kinds[WARMING - 1 :], MOST_GROWTH * len(options.only))


def judge(counts: list[int], kinds: list[Counter[str]], most: int) -> int:
    """Report it and return 1 if bytes grew by more than *most* each round, or there are more objects than at first.

    Single rounds do not count: caches fill up, and buffers of units that wait for fragments are kept.
    """
    growth = statistics.median(
        (after - before) / 2 for before, after in zip(counts, counts[2:], strict=False)
    )
    more = +(kinds[-1] - kinds[0])
    print(f"{growth:.0f} bytes more in each round, {sum(more.values())} more objects {dict(more) or ''}")
    return int(growth > most or bool(more))


if __name__ == "__main__":
    sys.exit(main())
