"""What the agent and the packet path ask of an encapsulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.wire.ip import Buffer


@dataclass(frozen=True, slots=True)
class Clear:
    """How payloads in the clear are made and read.

    A payload is the *prefix* for the packet's IP version, the same even number of bytes for both and at most 16, and
    the packet.  *strip* returns where the packet in a
    payload begins and ends; what follows it is padding.  It raises PacketError with the reason that is counted, and
    nothing else, for any bytes.
    """

    prefix: Mapping[int, bytes]
    strip: Callable[[Buffer], tuple[int, int]]

    @property
    def header_size(self) -> int:
        """The bytes before the packet."""
        return len(self.prefix[4])


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """One way to carry packets between two peers.

    *overhead* is what the tunnel's MTU is smaller by than the underlay's, in bytes by the version of the outer IP
    header.  *clear* is None where payloads are sealed: then sessions make and read them.
    """

    name: str
    default_port: int
    overhead: Mapping[int, int]
    clear: Clear | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether only the two ends of a tunnel can read and make what it carries."""
        return self.clear is None
