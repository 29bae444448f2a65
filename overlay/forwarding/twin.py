"""What the two directions ask of the compiled twin, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from overlay.forwarding.peer import Peer
    from overlay.forwarding.underlay.udp_socket import UdpSocket


class TunReader(Protocol):
    """The reading end of the tun; io.FileIO has it."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Twin(Protocol):
    """Drains descriptors in place of Python."""

    def drain_tun(self, tun: TunReader, now: float) -> None:
        """Forward what the tun has, at most a batch.  Raises OSError as a read does."""

    def flush_peer(self, peer: Peer) -> None:
        """Send what waits for *peer* until the end of the batch."""

    def drain_raw(self, udp: UdpSocket, now: float) -> bool:
        """Take what *udp*, a raw socket, has, a batch or a little more, and return whether there may be more."""

    def drain_udp(self, udp: UdpSocket, now: float, most: int) -> bool:
        """Take what *udp* has, about *most* bytes, and return whether there may be more."""
