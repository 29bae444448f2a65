"""The interface of the compiled twin to the two directions, if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.underlay.udp_socket import UdpSocket


class TunReader(Protocol):
    """The reading end of the tun; io.FileIO has it."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Twin(Protocol):
    """Drains descriptors in place of Python."""

    lane: Any
    """Its lane, or the first of them."""

    def settle(self) -> None:
        """Pass the settings to the lane, and forget the routes of an older table: before each drain, or wait."""

    def drain_tun(self, tun: TunReader, now: float) -> None:
        """Forward what the tun has, at most a batch.  Raises OSError as a read does."""

    def flush_peer(self, peer: LivePeer) -> None:
        """Send what waits for *peer* until the end of the batch."""

    def drain(self, udp: UdpSocket, now: float, most: int) -> bool | None:
        """Take what *udp* has, about *most* bytes or a batch, and return whether there may be more.

        Returns None and takes nothing if the twin does not know its kind of datagrams.
        """

    def see_to_tun(self, result: int, tun: TunReader, now: float) -> None:
        """Deal with the *result* of a drain, and go on with it.  Raises OSError as a read does."""

    def see_to_udp(self, result: int, udp: UdpSocket, now: float, most: int) -> bool:
        """Deal with the *result* of a drain, and go on with it; return whether there may be more."""

    def take_news(self) -> None:
        """Count drops, and have the sender send what the kernel did not take from the twin."""
