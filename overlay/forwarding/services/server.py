"""A server of a virtual service as the forwarder has it."""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.forwarding import state
from overlay.services.schedulers import Real

if TYPE_CHECKING:
    from overlay.forwarding.peer import LivePeer


class Takes(enum.IntEnum):
    """What a server takes."""

    NEW = 0
    KEPT = 1  # packets of the flows that it has: drained
    NOTHING = 2  # down or disabled; packets of health checks reach it


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server of a service, as the agent says.

    *number* is stable in the service, *key* the identity in schedulers.  *weight* is the effective one.  A *dscp* above
    0 is written into all packets to it, so that its peer tells its servers apart.  *apart* is what it takes by an IP
    version, where that is less.
    """

    number: int
    key: str
    peer: LivePeer | None  # None for one that is gone
    weight: int = 1
    takes: Takes = Takes.NEW
    dscp: int = 0
    upper: int = 0
    lower: int = 0
    apart: tuple[tuple[int, Takes], ...] = ()


class Server(state.ServerState):
    """A server, and what went to it.

    Flows of the table refer to it by *index*.  *peer* is None once it has lost its flows: those that are still in the
    table end with their next packet.  What goes to it by *uncounted* is not counted here: health checks.
    """

    __slots__ = (
        "apart", "identity", "index", "key", "lower", "number", "peer", "takes", "uncounted", "upper", "weight",
    )  # fmt: skip

    def __init__(self, index: int, row: ServerSettings) -> None:
        self.index = index
        self.packets = self.bytes = self.connections = 0
        self.uncounted = state.ServerState()
        self.uncounted.packets = self.uncounted.bytes = 0
        self.update(row)

    def update(self, row: ServerSettings) -> None:
        """Take over the values of *row*, and keep the flows."""
        self.number, self.key, self.weight, self.takes = row.number, row.key, row.weight, row.takes
        self.identity = zlib.crc32(row.key.encode())  # the same at every director
        self.dscp, self.upper, self.lower = row.dscp, row.upper, row.lower
        self.apart = dict(row.apart)
        self.peer: LivePeer | None = row.peer
        self._goes_to = self.uncounted._goes_to = None if row.peer is None else row.peer.state
        self.uncounted.dscp = row.dscp

    def lose(self) -> None:
        """Take nothing any more."""
        self.peer, self.takes = None, Takes.NOTHING
        self._goes_to = self.uncounted._goes_to = None

    @property
    def takes_new(self) -> bool:
        """Whether new flows may go to it."""
        return self.takes is Takes.NEW and self.weight > 0

    def takes_new_by(self, version: int) -> bool:
        """Whether new flows of an IP version may go to it."""
        return self.takes_new and self.apart.get(version, Takes.NEW) is Takes.NEW

    def real(self, version: int = 0) -> Real:
        """Return what schedulers see of it, for both IP versions or for one alone."""
        is_there = self.takes is Takes.NEW and self.apart.get(version, Takes.NEW) is Takes.NEW
        weight = self.weight if is_there else 0
        return Real(self.key, weight, self.index, self.upper, self.lower)
