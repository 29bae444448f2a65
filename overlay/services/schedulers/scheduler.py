"""The interface of schedulers, which choose servers for new flows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Real:
    """A real server, as schedulers see it.

    *key* is its identity, the same on every director.  *index* is its place in Loads.  A *weight* of 0 takes no new
    flows.  Once it has *upper* flows, it takes none either until it has fewer than *lower*, or than three quarters of
    *upper* if *lower* is 0; an *upper* of 0 means no limit.
    """

    key: str
    weight: int
    index: int
    upper: int = 0
    lower: int = 0


@dataclass(slots=True)
class Loads:
    """How many flows each server has, by index, and which servers have too many.

    *active* are flows in SYN_RECV or ESTABLISHED, and those of protocols without a connection; *inactive* are those
    that are being closed.
    """

    active: list[int] = field(default_factory=list)
    inactive: list[int] = field(default_factory=list)
    full: set[int] = field(default_factory=set)

    def heed(self, server: Real) -> None:
        """Update whether *server* takes new flows by its thresholds: one that was full stays so for a while."""
        if not server.upper:
            self.full.discard(server.index)
            return
        flows = self.active[server.index] + self.inactive[server.index]
        if flows >= server.upper:
            self.full.add(server.index)
        elif flows < server.lower or (not server.lower and flows * 4 < server.upper * 3):
            self.full.discard(server.index)


class Scheduler(Protocol):
    """Chooses a server for each new flow of one service."""

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers*, in the order of the peers file, from now on.

        What takes long is left to prepare(); until that is done, the choice may still be among the previous servers.
        """

    def prepare(self) -> bool:
        """Do a piece of the work that set_servers() left, about 0.2 ms, and return whether there is more."""

    @property
    def is_ready(self) -> bool:
        """Whether choose() can answer; if not, prepare() has to be called first."""

    def choose(self, flow: int, loads: Loads) -> int | None:
        """Return the index of the server for a new flow; None if none takes one, or it is not ready.

        *flow* is the 32-bit hash of what the kind of scheduler asks for (Hashed), 0 if it asks for nothing.
        """


class Hashed(enum.Enum):
    """The part of a flow that is hashed."""

    NOTHING = enum.auto()
    FLOW = enum.auto()  # the client's address and port; with persistence only its network
    CLIENT = enum.auto()  # the client's address; with persistence its network
    ADDRESS = enum.auto()  # the address of the service


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of scheduler.

    *sentence* says what it does, and continues after its name.  One that *is_function* gives the same answer for a flow
    on every director and after every restart, as long as the servers are the same: flows need not be remembered.
    """

    name: str
    make: Callable[[], Scheduler]
    sentence: str
    hashed: Hashed = Hashed.NOTHING
    is_function: bool = False


class InOrder:
    """The common part of schedulers that only need to know the servers in their order."""

    def __init__(self) -> None:
        self._servers: tuple[Real, ...] = ()

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers* from now on."""
        self._servers = tuple(servers)

    def prepare(self) -> bool:
        """Return False: there is nothing to prepare."""
        return False

    @property
    def is_ready(self) -> bool:
        """Always True."""
        return True

    def takers(self, loads: Loads) -> list[Real]:
        """Return the servers that take new flows, in their order."""
        full = loads.full
        return [server for server in self._servers if server.weight and server.index not in full]


class RoundTheList(InOrder):
    """The common part of schedulers that remember their place in the list.

    If the servers change, the place is that of the server chosen last or, if it is gone, of the nearest one before it
    that is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = -1  # the place of the server chosen last

    def set_servers(self, servers: Sequence[Real]) -> None:
        """Choose among *servers* from now on, beginning after the one chosen last."""
        places = {server.key: place for place, server in enumerate(servers)}
        while self._last >= 0 and self._servers[self._last].key not in places:
            self._last -= 1
        if self._last >= 0:
            self._last = places[self._servers[self._last].key]
        super().set_servers(servers)
