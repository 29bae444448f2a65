"""Dropped packets, as the forwarder reports them; its reports are not trusted to be well-formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.capturing.entry import CapturePoint, Entry
from overlay.capturing.mending import with_headers
from overlay.cli.exits import Failure
from overlay.errors import PacketError
from overlay.reasons import REASONS
from overlay.wire.dropped import Dropped, DroppedKind
from overlay.wire.ip import packet_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from overlay.host.sockets.drop_socket import DropSocket

# Ours
LONGEST_CONFUSION = 1000  # malformed messages in a row


@dataclass(frozen=True, slots=True)
class DropNames:
    """What the numbers mean: *reasons* in order, *peers* by number, and the node's own *port*.

    *peer* is the one whose packets are wanted, None for all.
    """

    interface: str
    peer: str | None
    reasons: Sequence[str]
    peers: Mapping[int, str]
    port: int
    is_tap: bool = False


class DroppedPackets:
    """The packets that are dropped, only for *reason* if it is not empty."""

    places: tuple[CapturePoint, ...] = (CapturePoint.DROPPED, CapturePoint.REFUSED)

    def __init__(self, hearing: DropSocket, named: DropNames, reason: str) -> None:
        self._hearing, self._named, self._reason = hearing, named, reason
        self.received = self.missed = 0
        self.is_drained = False  # nothing more will come
        self._is_ending = False
        self._missed = self._missed_before = 0  # reported by this forwarder and by earlier ones

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._hearing.fileno()

    def close(self) -> None:
        """End."""
        self._hearing.close()

    @property
    def unread(self) -> int:
        """Unknown, and thus 0: missed packets are reported with the next ones."""
        return 0

    def count(self) -> None:
        """Do nothing: missed packets are reported with the next ones."""

    def stop(self) -> None:
        """Make read() ask for the end as soon as it has read everything, so that the number of missed packets is
        known.
        """
        self._is_ending = True

    def read(self) -> Iterator[Entry]:
        """Yield the packets that have arrived.  Raises Failure when no more can come, unless stop() was called."""
        for _ in range(LONGEST_CONFUSION):
            try:
                heard = self._hearing.read()
            except EOFError:
                self.is_drained = True
                if self._is_ending:
                    return
                raise Failure(f"the agent of {self._named.interface} has stopped") from None
            except PacketError:
                continue
            if heard is None:
                if self._is_ending:
                    self._hearing.ask_for_the_end()
                return
            if (entry := self._entry(*heard)) is not None:
                yield entry

    def _entry(self, wall_ns: int, dropped: Dropped) -> Entry | None:
        if dropped.missed < self._missed:  # from another forwarder, which counts from zero
            self._missed_before += self._missed
        self._missed = dropped.missed
        self.missed = self._missed_before + self._missed
        self.received += dropped.count
        if not dropped.count or dropped.reason >= len(self._named.reasons):
            return None
        reason, peer = self._named.reasons[dropped.reason], self._named.peers.get(dropped.peer, "")
        if (self._reason and reason != self._reason) or (
            self._named.peer is not None and peer != self._named.peer
        ):
            return None
        known = REASONS.get(reason)
        notes = [f"drop={reason}"]
        if dropped.count > 1:
            notes.append(f"count={dropped.count}")
        if known is not None:
            notes.append(f"(the packet {known.sentence})")
        data, length, place = dropped.data, dropped.length, CapturePoint.DROPPED
        if dropped.kind == DroppedKind.DATAGRAM:
            data, length = with_headers(data, length, dropped.source, self._named.port)
            place = CapturePoint.REFUSED
        elif dropped.kind == DroppedKind.PACKET and not self._named.is_tap:
            data, length = _without_padding(data, length)
        return Entry(place, wall_ns, data, length, peer, tuple(notes))


def _without_padding(data: bytes, length: int) -> tuple[bytes, int]:
    """Return an IP packet without the padding of its tunnel (the WireGuard paper, section 5.4.6), and its length."""
    try:
        whole = packet_length(data)
    except PacketError:  # truncated, or not a packet
        return data, length
    return data[:whole], min(length, whole)
