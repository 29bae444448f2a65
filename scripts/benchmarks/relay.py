"""A wire of known quality between two interfaces: frames are lost, delayed and limited to a rate, in both directions.

    python -m scripts.benchmarks.relay port0 port1 --seconds 600

It replaces netem on kernels without it.  Conditions come on stdin, one JSON object a line with the fields of
Conditions; each line is answered on stdout with the Counts under the previous conditions.  It ends when stdin does, and
so with its parent, or after --seconds.  The frames that it holds are bounded by the queue and the delay at the rate.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import errno
import gc
import json
import os
import random
import select
import socket
import time
from dataclasses import dataclass

# Linux: if_ether.h, socket.h, if_packet.h
ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33

# Ours
LARGEST_FRAME = 9100
BATCH = 64  # frames read from one side before the other gets its turn
# Seconds without a frame that end a burst.  Otherwise a burst that has stopped a stream would go on through a dozen of
# its retransmissions, each later than the last, and the rest of the run would be silent.
BURST_GAP = 0.005
GRAIN = 0.0002  # seconds; frames that are due within it leave together, which saves a wakeup for each
RECEIVE_BUFFER = 16 << 20
MOST_HELD = 64 << 20  # bytes that a direction holds at most, whatever rate and delay allow
NICENESS = -10  # the measured programs must not delay the wire


@dataclass(frozen=True, slots=True)
class Conditions:
    """The effect of the wire on frames, separately in each direction."""

    loss: float = 0.0  # share of the frames
    burst: int = 1  # frames that are lost in a row, unless BURST_GAP lies between them
    delay: float = 0.0  # seconds
    rate: float = 0.0  # bits per second, Ethernet header included; 0 for no limit
    queue: float = (
        0.2  # seconds a frame may wait for its turn at that rate: more than the window of one stream
    )
    seed: int = 0


@dataclass(slots=True)
class Counts:
    """The fate of the frames of both directions."""

    frames: int = 0  # that arrived
    lost: int = 0  # according to the conditions
    overflowed: int = 0  # the queue was full
    missed: int = 0  # the relay did not keep up


class Line:
    """One direction of the wire.  Times are seconds of any one clock."""

    def __init__(self, conditions: Conditions, name: str) -> None:
        self._delay, self._queue = conditions.delay, conditions.queue
        self._seconds_per_byte = 8 / conditions.rate if conditions.rate else 0.0
        self._burst = conditions.burst
        # There are (1 - p) n / p frames on average between bursts of n, so that the share p of all frames is lost.
        loss = conditions.loss
        self._begin = loss / (loss + conditions.burst * (1 - loss)) if loss else 0.0
        self._random = random.Random(f"{conditions.seed} {name}").random
        self._left = 0  # frames of this burst that are still to be lost
        self._lost_at = 0.0
        self._free_at = 0.0  # when the last frame has been sent at the rate
        self._held: collections.deque[tuple[float, bytes]] = collections.deque()
        self._held_bytes = 0
        self.counts = Counts()

    def put(self, frame: bytes, now: float) -> None:
        """Accept *frame*, which arrived at that time, or lose it."""
        self.counts.frames += 1
        if now - self._lost_at > BURST_GAP:
            self._left = 0
        if self._left or (self._begin and self._random() < self._begin):
            self._left = (self._left or self._burst) - 1
            self._lost_at = now
            self.counts.lost += 1
            return
        start = max(self._free_at, now)
        if start - now > self._queue or self._held_bytes > MOST_HELD:
            self.counts.overflowed += 1
            return
        self._free_at = start + len(frame) * self._seconds_per_byte
        self._held.append((self._free_at + self._delay, frame))
        self._held_bytes += len(frame)

    def due(self) -> float | None:
        """Return when the next frame leaves; None if none is held."""
        return self._held[0][0] if self._held else None

    def take(self, now: float) -> list[bytes]:
        """Return the frames that leave by *now*, in the order they came."""
        leaving = []
        while self._held and self._held[0][0] <= now:
            leaving.append(self._held.popleft()[1])
        self._held_bytes -= sum(map(len, leaving))
        return leaving


class Relay:
    """The wire: its two ports, and a line in each direction."""

    def __init__(self, ports: list[socket.socket]) -> None:
        self._ports = ports
        self._input = b""
        self._set(Conditions())

    def run(self, end: float) -> None:
        """Carry frames until *end* or the end of stdin."""
        ways = [(self._ports[0], 0, self._ports[1]), (self._ports[1], 1, self._ports[0])]
        sources: list[int | socket.socket] = [0, *self._ports]
        now = time.monotonic()
        while now < end:
            dues = [due for line in self._lines if (due := line.due()) is not None]
            wait = max(GRAIN, min(dues) - now) if dues else end - now
            ready = select.select(sources, [], [], wait)[0]
            if 0 in ready and not self._read_conditions():
                return
            now = time.monotonic()
            for source, number, target in ways:
                line = self._lines[number]
                if source in ready:
                    with contextlib.suppress(BlockingIOError):
                        for _ in range(BATCH):
                            line.put(source.recv(LARGEST_FRAME, socket.MSG_DONTWAIT), now)
                for frame in line.take(now):
                    self._send(target, frame)

    def _send(self, target: socket.socket, frame: bytes) -> None:
        try:
            target.send(frame)
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.ENETDOWN}:
                raise
            self._unsent += 1

    def _read_conditions(self) -> bool:
        """Handle the lines that arrived on stdin; return False at its end."""
        piece = os.read(0, 65536)
        *lines, self._input = (self._input + piece).split(b"\n")
        for line in lines:
            print(json.dumps(dataclasses.asdict(self._counts())), flush=True)
            self._set(Conditions(**json.loads(line)))
        return bool(piece)

    def _set(self, conditions: Conditions) -> None:
        """Restart under *conditions*; frames that are held are dropped."""
        self._lines = [Line(conditions, name) for name in ("there", "back")]
        self._unsent = 0

    def _counts(self) -> Counts:
        one, other = (line.counts for line in self._lines)
        # struct tpacket_stats: frames, and those that the buffer had no room for, since it was last asked for
        asked = [port.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8) for port in self._ports]
        missed = sum(int.from_bytes(statistics[4:], "little") for statistics in asked)
        return Counts(
            one.frames + other.frames,
            one.lost + other.lost,
            one.overflowed + other.overflowed,
            missed + self._unsent,
        )


def open_port(interface: str) -> socket.socket:
    """Return a socket for the frames that arrive at *interface*, but not those that leave."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    port.bind((interface, ETH_P_ALL))
    return port


def main() -> None:
    """Carry frames according to the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ports", nargs=2, metavar="INTERFACE")
    parser.add_argument("--seconds", type=float, default=600, help="the longest it runs (default 600)")
    arguments = parser.parse_args()
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    gc.disable()  # there are no reference cycles here
    Relay([open_port(name) for name in arguments.ports]).run(time.monotonic() + arguments.seconds)


if __name__ == "__main__":
    main()
