"""One captured packet, and the places where packets are captured: the interfaces of the file."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from overlay.capturing import pcapng
from overlay.capturing.pcapng import COMMENTS, LINKTYPE_ETHERNET, LINKTYPE_RAW, Interface
from overlay.text import printable

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer


class CapturePoint(enum.Enum):
    """Where a packet was captured; the value is appended to the name of the tunnel's interface in the file."""

    OUT = "out"
    IN = "in"
    DROPPED = "dropped"
    REFUSED = "refused"
    OUTSIDE_OUT = "outside-out"
    OUTSIDE_IN = "outside-in"

    @property
    def flags(self) -> int:
        """Return the direction, as a pcapng flag."""
        return _FLAGS.get(self, 0)


_FLAGS = {
    CapturePoint.OUT: pcapng.OUTBOUND,
    CapturePoint.OUTSIDE_OUT: pcapng.OUTBOUND,
    CapturePoint.IN: pcapng.INBOUND,
    CapturePoint.OUTSIDE_IN: pcapng.INBOUND,
    CapturePoint.REFUSED: pcapng.INBOUND,
}
_DESCRIPTIONS = {
    CapturePoint.OUT: "packets that the kernel has sent into the tunnel's interface",
    CapturePoint.IN: "packets that came from peers, as the kernel received them",
    CapturePoint.DROPPED: "packets that were dropped in the tunnel, with the reason",
    CapturePoint.REFUSED: "datagrams that were dropped before they were opened, behind made-up IP and UDP headers",
    CapturePoint.OUTSIDE_OUT: "datagrams to peers as this host's interfaces sent them",
    CapturePoint.OUTSIDE_IN: "datagrams from peers as this host's interfaces received them",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A packet of *length* bytes, the first of which are *data*.  *wall_ns* is of CLOCK_REALTIME, in nanoseconds.

    *notes* are parts of a comment, such as ``drop=source``.
    """

    place: CapturePoint
    wall_ns: int
    data: Buffer
    length: int
    peer: str = ""
    notes: tuple[str, ...] = ()

    @property
    def comment(self) -> str:
        """Return the comment on the packet in the file."""
        return _comment(self.peer, self.notes)


@lru_cache(COMMENTS)
def _comment(peer: str, notes: tuple[str, ...]) -> str:
    parts = [f"peer={peer}"] if peer else []
    return printable(" ".join((*parts, *notes)))


def describe(
    place: CapturePoint, interface: str, snaplen: int, expression: str, *, is_tap: bool
) -> Interface:
    """Return the description of *place* in the file; *interface* is that of the tunnel."""
    is_frame = is_tap and place in {CapturePoint.OUT, CapturePoint.IN, CapturePoint.DROPPED}
    is_filtered = place in {CapturePoint.OUT, CapturePoint.IN, CapturePoint.DROPPED}
    return Interface(
        f"{interface}:{place.value}",
        _DESCRIPTIONS[place],
        LINKTYPE_ETHERNET if is_frame else LINKTYPE_RAW,
        snaplen,
        expression if is_filtered else "",
    )
