"""The sources of a capture: the kernel, for packets that pass interfaces."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Protocol

from overlay.capturing.entry import CapturePoint, Entry
from overlay.capturing.mending import complete
from overlay.capturing.whose import ETHERNET_SIZE
from overlay.cli.exits import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.capturing.whose import Whose
    from overlay.host.sockets.packet_capture import PacketCapture, Seen
    from overlay.wire.ip import Buffer

# Ours
MOST_READ = 1000  # packets at once, of this peer or of others


class Source(Protocol):
    """A source of packets of some *places*.  *received* and *missed* are as of the last count()."""

    places: tuple[CapturePoint, ...]
    received: int
    missed: int

    @property
    def unread(self) -> int:
        """Return how many packets had arrived by the last count(), were not missed, and are still unread."""

    @property
    def is_drained(self) -> bool:
        """Return whether everything that had arrived at the time of stop() has been read."""

    def count(self) -> None:
        """Count what has arrived, and what of it was missed."""

    def stop(self) -> None:
        """Count for the last time: later packets are not wanted."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def read(self) -> Iterator[Entry]:
        """Yield the packets that have arrived; skipped ones count for the turn, too.

        Raises Failure when there will be no more.
        """

    def close(self) -> None:
        """End."""


class _OfTheKernel:
    """The common part of the two sources in the kernel."""

    places: tuple[CapturePoint, ...] = ()

    def __init__(self, capture: PacketCapture, whose: Whose, peer: str | None) -> None:
        """With *peer*, only its packets are yielded."""
        self._capture, self._whose, self._peer = capture, whose, peer
        self.received = self.missed = 0
        self._is_empty = False  # when last examined

    @property
    def unread(self) -> int:
        """Return the kernel's count."""
        return self._capture.unread

    @property
    def is_drained(self) -> bool:
        """Return whether everything that had arrived at the time of stop() has been read."""
        return self._is_empty or not self._capture.unread

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._capture.fileno()

    def close(self) -> None:
        """End."""
        self._capture.close()

    def count(self) -> None:
        """Ask the kernel."""
        self._capture.count()
        self.received, self.missed = self._capture.received, self._capture.missed

    def stop(self) -> None:
        """Ask the kernel for the last time."""
        self._is_empty = False
        with contextlib.suppress(OSError):
            self.count()


class TunnelPackets(_OfTheKernel):
    """The packets that pass the tunnel's interface."""

    places: tuple[CapturePoint, ...] = (CapturePoint.OUT, CapturePoint.IN)

    def __init__(
        self, capture: PacketCapture, whose: Whose, interface: str, peer: str | None, *, is_tap: bool
    ) -> None:
        super().__init__(capture, whose, peer)
        self._interface, self._at = interface, ETHERNET_SIZE if is_tap else 0

    def read(self) -> Iterator[Entry]:
        """Yield the packets that have arrived.  Raises Failure when there will be no more."""
        for _ in range(MOST_READ):
            try:
                seen = self._capture.read()
            except OSError as error:
                self._look_at(error)
                return
            if seen is None:
                self._is_empty = True
                return
            peer = self._whose.of_packet(seen.data, is_sent=seen.is_sent, at=self._at)
            if self._peer is None or peer == self._peer:
                yield self._entry(seen, peer)

    def _entry(self, seen: Seen, peer: str) -> Entry:
        notes: list[str] = []
        if not peer and (service := self._whose.service_of(seen.data, self._at)):
            notes.append(f"service={service}")
        if seen.segment:
            notes.append(f"segments={seen.segment}")
        if seen.csum_start >= 0:
            # The checksum of a super-packet is never sent, and summing 64 KiB takes five times as long as everything
            # else here
            is_whole = not seen.segment and seen.length == len(seen.data)
            if not (is_whole and complete(seen.data, seen.csum_start, seen.csum_offset)):
                notes.append("checksum=partial")
        place = CapturePoint.OUT if seen.is_sent else CapturePoint.IN
        return Entry(place, seen.wall_ns, seen.data, seen.length, peer, tuple(notes))

    def _look_at(self, error: OSError) -> None:
        """Return if the interface still exists after *error*.  Raises Failure if not."""
        if error.errno == errno.ENETDOWN:
            with contextlib.suppress(OSError):
                socket.if_nametoindex(self._interface)
                return
            raise Failure(f"{self._interface} is gone: its agent has stopped") from error
        raise Failure(
            f"packets of {self._interface} cannot be captured any more: {error.strerror}"
        ) from error


class UnderlayDatagrams(_OfTheKernel):
    """The datagrams of the tunnels as they pass this host's interfaces."""

    places: tuple[CapturePoint, ...] = (CapturePoint.OUTSIDE_OUT, CapturePoint.OUTSIDE_IN)

    def read(self) -> Iterator[Entry]:
        """Yield the packets that have arrived.  Raises Failure when there will be no more."""
        for _ in range(MOST_READ):
            try:
                seen = self._capture.read()
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # one of many interfaces
                    continue
                raise Failure(f"datagrams cannot be captured any more: {error.strerror}") from error
            if seen is None:
                self._is_empty = True
                return
            peer = self._whose.outside(*_remote_end(seen.data, is_sent=seen.is_sent))
            if self._peer is None or peer == self._peer:
                place = CapturePoint.OUTSIDE_OUT if seen.is_sent else CapturePoint.OUTSIDE_IN
                yield Entry(place, seen.wall_ns, seen.data, seen.length, peer)


def _remote_end(packet: Buffer, *, is_sent: bool) -> tuple[bytes, int]:
    """Return the address and UDP port of the other host; an empty address or the port 0 if there is none."""
    version = packet[0] >> 4 if len(packet) else 0
    if version == 4 and len(packet) >= 20:
        at, header, protocol = (16 if is_sent else 12), (packet[0] & 15) * 4, packet[9]
        host, is_first = bytes(packet[at : at + 4]), not (packet[6] << 8 | packet[7]) & 0x1FFF
    elif version == 6 and len(packet) >= 40:
        at, header, protocol = (24 if is_sent else 8), 40, packet[6]
        host, is_first = bytes(packet[at : at + 16]), True
    else:
        return b"", 0
    place = header + (2 if is_sent else 0)
    has_port = protocol == socket.IPPROTO_UDP and is_first and len(packet) >= place + 2
    return host, packet[place] << 8 | packet[place + 1] if has_port else 0
