"""Captures of dropped packets: each receives them on a socket that the agent has passed on.

Nothing here waits.  Packets that a full socket misses are counted, and a socket that is no longer read is closed.
Without a capture, `Drops.watch` is None everywhere, and dropping costs what it costs anyway.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from overlay.link.messages import OWN
from overlay.reasons import REASONS
from overlay.wire.addresses import pack_host
from overlay.wire.dropped import LONGEST, Dropped, DroppedKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.received import Received
    from overlay.link.messages import BeginCapture
    from overlay.reasons import Drops
    from overlay.wire.ip import Buffer

# Specification (linux/socket.h)
_WITHOUT_WAITING = 0x40 | 0x4000  # MSG_DONTWAIT, MSG_NOSIGNAL

# Ours
MOST_CAPTURES = 16  # at a time; the agent allows no more
PAUSE = 64  # drops for which a full socket is not tried again
_NUMBERS = {name: number for number, name in enumerate(REASONS)}


class Sink(Protocol):
    """The socket of one capture."""

    def send(self, data: bytes, flags: int, /) -> int: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Capture:
    """One capture, and how many packets it has missed."""

    sink: Sink
    snaplen: int
    missed: int = 0
    pause: int = 0


class Captures:
    """The captures that get drops: of *own*, which belong to no peer, and of each of *peers*."""

    def __init__(
        self, own: Drops, peers: dict[int, LivePeer], received: Received, spread: Callable[..., None]
    ) -> None:
        """*received* is where a datagram is before it is opened; *spread* does a job in pieces."""
        self._own, self._peers, self._received, self._spread = own, peers, received, spread
        self._captures: dict[int, Capture] = {}
        self._lanes: list[Any] = []

    @property
    def is_on(self) -> bool:
        """Whether a capture runs."""
        return bool(self._captures)

    def begin(self, command: BeginCapture, sinks: Sequence[Sink]) -> None:
        """Tell the one of *sinks* of what is dropped from now on; what the agent cannot mean is counted as ``link``."""
        if len(sinks) != 1 or command.number in self._captures or len(self._captures) >= MOST_CAPTURES:
            self._own.add("link")
            for sink in sinks:
                sink.close()
            return
        self._captures[command.number] = Capture(sinks[0], command.snaplen)
        self._watch_all()

    def end(self, number: int) -> None:
        """Tell the capture *number* what it has missed, and nothing more; one that is over is not an error."""
        capture = self._captures.pop(number, None)
        if capture is not None:
            last = Dropped(DroppedKind.NOTHING, 0, OWN, 0, 0, capture.missed, b"")
            with contextlib.suppress(OSError):  # it is not read, or not in time
                capture.sink.send(last.build(), _WITHOUT_WAITING)
            capture.sink.close()
            self._watch_all()

    def watch(self, peer: LivePeer) -> None:
        """Watch the drops of *peer* from now on, while a capture runs."""
        peer.drops.watch = partial(self.dropped, peer.number) if self._captures else None

    def watch_lane(self, lane: Any) -> None:
        """Let the compiled twin note the packets that *lane* drops, whenever a capture runs."""
        self._lanes.append(lane)
        lane.capture_drops(self.is_on)

    def dropped(
        self, peer: int, reason: str, count: int, packet: Buffer | None = None, datagram: Buffer | None = None
    ) -> None:
        """Report to each capture."""
        data, kind, source = b"", DroppedKind.NOTHING, None
        if datagram is not None:
            data, kind, source = bytes(datagram[:LONGEST]), DroppedKind.DATAGRAM, self._source()
        elif packet is not None:
            data, kind = bytes(packet[:LONGEST]), DroppedKind.PACKET
        self._tell(Dropped(kind, _NUMBERS[reason], peer, len(data), count, 0, data, source))

    def take_captured(self, lane: Any) -> None:
        """Report the dropped packets that *lane* has kept."""
        captured, missed = lane.take_captured()
        for peer, reason, count, kind, length, data in captured:
            self._tell(Dropped(DroppedKind(kind), _NUMBERS[reason], max(peer, OWN), length, count, 0, data))
        for capture in self._captures.values():
            capture.missed += missed

    def _tell(self, dropped: Dropped) -> None:
        gone = []
        for number, capture in self._captures.items():
            if capture.pause:
                capture.pause -= 1
                capture.missed += dropped.count
                continue
            message = dropped.build_for(capture.missed, capture.snaplen)
            try:
                capture.sink.send(message, _WITHOUT_WAITING)
            except BlockingIOError:
                capture.pause = PAUSE
                capture.missed += dropped.count
            except OSError:
                gone.append(number)
        for number in gone:
            self.end(number)

    def _source(self) -> tuple[bytes, int] | None:
        """Return where the datagram that was received last came from."""
        source = getattr(self._received, "source", None)  # nothing may have arrived yet
        return None if source is None else (pack_host(source), source[1])

    def _watch_all(self) -> None:
        self._own.watch = partial(self.dropped, OWN) if self._captures else None
        for lane in self._lanes:
            lane.capture_drops(self.is_on)

        def watch(peer: LivePeer, _: float) -> None:
            self.watch(peer)

        self._spread("watch", list(self._peers.values()), watch)


def first_of(buffers: Iterable[Buffer], skip: int) -> bytes:
    """Return what *buffers* hold together, without the first *skip* bytes."""
    return b"".join(map(bytes, buffers))[skip:]
