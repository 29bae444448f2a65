"""Which servers of a service take flows, without I/O: by checks, manual settings, quorum and slow start.

Results and the time go in; the standing of each server and events come out.  Times are seconds of any clock that only
moves forward.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from peers.service import KEEP, MOST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from overlay.services.checking import Checking
    from peers.service import Server, Service

T = TypeVar("T")

# Ours
STEPS = 10  # in which a slow start reaches the whole weight; each rebuilds Maglev's table


class Condition(enum.Enum):
    """The state of a server as an operator sees it."""

    UP = "up"
    DOWN = "down"
    DRAINED = "drained"  # its weight is 0: it keeps its flows and gets no new ones
    DISABLED = "disabled"
    CHECKING = "checking"  # a check has no result yet


class FlowPolicy(enum.Enum):
    """Which packets a server gets.  The values are the forwarder's."""

    NEW = 0  # takes new flows
    OLD = 1  # keeps those it has
    NONE = 2  # loses those it has


@dataclass(frozen=True, slots=True)
class ByHand:
    """What an operator has set for a server; None and False leave it to the file and the checks."""

    weight: int | None = None
    is_drained: bool = False
    is_disabled: bool = False

    def __bool__(self) -> bool:
        return self != ByHand()


@dataclass(frozen=True, slots=True)
class ServerStanding:
    """The state of a server.  *weight* is the one that applies, *effective* the one used now; *since* is when that
    began.

    The reason is not part of it: Health.reason() gives it from the last results, which may change while the standing
    stays the same.  A server that is up in one IP version and down in the other is up; *apart* has its policy for the
    other.
    """

    condition: Condition
    flows: FlowPolicy
    weight: int
    effective: int
    since: float
    apart: tuple[tuple[int, FlowPolicy], ...] = ()


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """*server* is up or down now by its checks; or only in the IP *version*, while it is up in another."""

    server: Server
    is_up: bool
    reason: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class QuorumChanged:
    """The weights of live servers are enough now, or no longer: their sum is *live*, and *needed* is the quorum."""

    has_quorum: bool
    live: int
    needed: int


Event: TypeAlias = ServerChanged | QuorumChanged


class Health:
    """The servers of one *service*, by their keys; *checkings* are the checks of each, which others may share."""

    def __init__(self, service: Service, checkings: Mapping[str, Sequence[Checking]], now: float) -> None:
        self.service = service
        self.by_hand: dict[str, ByHand] = {}
        self._checkings = checkings
        self._was_up = {server.key: self._is_up(server) for server in service.entries}
        self._were_down: dict[str, frozenset[int]] = {}
        self._came_back: dict[str, float] = {}  # when servers that start slowly came back
        self.has_quorum = self.live_weight >= max(1, service.quorum)
        self.standings: dict[str, ServerStanding] = {}
        self._stand(now)

    def succeed(
        self, service: Service, checkings: Mapping[str, Sequence[Checking]], now: float
    ) -> list[Event]:
        """Continue with *service* as the file now has it.

        Unchanged servers keep their manual settings, the time since when they are in their state, and their progress in
        a slow start.
        """
        kept = {server.key for server in self.service.entries} & {
            server.key for server in service.entries if server in self.service.entries
        }
        self.by_hand, self._came_back = _only(self.by_hand, kept), _only(self._came_back, kept)
        self.standings, was_up = _only(self.standings, kept), _only(self._was_up, kept)
        self.service, self._checkings = service, checkings
        self._was_up = {server.key: self._is_up(server) for server in service.entries} | was_up
        return self.look(now)

    def set_by_hand(self, key: str, by_hand: ByHand, now: float) -> list[Event]:
        """Apply *by_hand* to the server *key* until the agent stops or the file changes that server."""
        self.by_hand[key] = by_hand
        return self.look(now)

    @property
    def live_weight(self) -> int:
        """The sum of the weights of live servers; a slow start does not lower it."""
        return sum(self._weight(server) for server in self.service.servers if self._takes_new(server))

    def next_deadline(self) -> float:
        """Return when look() has something to do even without a new result; infinity if never."""
        if not self.service.slow_start:
            return math.inf
        step = self.service.slow_start / STEPS
        return min(
            (came + step * (self._steps(came, self._looked_at) + 1) for came in self._came_back.values()),
            default=math.inf,
        )

    def look(self, now: float) -> list[Event]:
        """Examine the results of the checks again, and return what has happened since the last call."""
        events: list[Event] = []
        for server in self.service.entries:
            is_up, was_up = self._is_up(server), self._was_up[server.key]
            if is_up != was_up:
                self._was_up[server.key] = is_up
                events.append(ServerChanged(server, is_up, self._found(server)))
                self._came_back.pop(server.key, None)
                if is_up and self.service.slow_start:
                    self._came_back[server.key] = now
            events += self._look_at_versions(server, is_whole=is_up == was_up)
        self._came_back = {
            key: came for key, came in self._came_back.items() if now < came + self.service.slow_start
        }
        service, live = self.service, self.live_weight
        if self.has_quorum and (live < service.quorum - service.hysteresis or not live):
            self.has_quorum = False
            events.append(QuorumChanged(False, live, service.quorum))
        elif not self.has_quorum and live and live >= service.quorum + service.hysteresis:
            self.has_quorum = True
            events.append(QuorumChanged(True, live, service.quorum))
        self._stand(now)
        return events

    def reason(self, server: Server) -> str:
        """Return the reason for the state of *server*: a manual setting, or what its checks found last."""
        return self._judge(server)[1]

    # One server

    def _look_at_versions(self, server: Server, *, is_whole: bool) -> Iterator[ServerChanged]:
        """Yield the IP versions in which a server has gone up or down, unless the whole server has."""
        before = self._were_down.pop(server.key, frozenset())
        down = self._down_by(server)
        if down:
            self._were_down[server.key] = down
        for version in sorted(before ^ down) if is_whole else ():
            yield ServerChanged(server, version in before, self._found_by(server, version), version)

    def _down_by(self, server: Server) -> frozenset[int]:
        """Return the IP versions in which a server is down while it is up in another."""
        checkings = self._checkings.get(server.key, ())
        down = {each.version for each in checkings if not each.is_up}
        return frozenset(down) if down != {each.version for each in checkings} else frozenset()

    def _is_up(self, server: Server) -> bool:
        checkings = self._checkings.get(server.key, ())
        return bool(self._down_by(server)) or all(each.is_up for each in checkings)

    def _found(self, server: Server) -> str:
        """Return what the checks of the server found last."""
        checkings = self._checkings.get(server.key, ())
        versions = list(dict.fromkeys(each.version for each in checkings))
        reasons = {version: self._found_by(server, version) for version in versions}
        if len(set(reasons.values())) < 2:
            return next(iter(reasons.values()), "")
        return ", ".join(f"IPv{version}: {reason}" for version, reason in reasons.items() if reason)

    def _found_by(self, server: Server, version: int) -> str:
        checkings = [each for each in self._checkings.get(server.key, ()) if each.version == version]
        failed = [each for each in checkings if not each.is_up]
        reasons = [each.result.reason for each in failed or checkings if each.result]
        return "; ".join(dict.fromkeys(reasons))

    def _weight(self, server: Server) -> int:
        """Return the weight that applies: the one set by hand, else the file's, adjusted by scripts."""
        by_hand = self.by_hand.get(server.key, ByHand())
        if by_hand.weight is not None:
            return by_hand.weight
        checkings, down = self._checkings.get(server.key, ()), self._down_by(server)
        by = next((each.version for each in checkings if each.version not in down), None)
        weights = [
            each.result.weight
            for each in checkings
            if each.version == by and each.result is not None and each.result.weight is not None
        ]
        return max(0, min(MOST_WEIGHT, server.weight + sum(weight - server.weight for weight in weights)))

    def _takes_new(self, server: Server) -> bool:
        by_hand = self.by_hand.get(server.key, ByHand())
        return self._is_up(server) and not by_hand.is_drained and not by_hand.is_disabled

    def _steps(self, came: float, now: float) -> int:
        return int((now - came) / (self.service.slow_start / STEPS) + 1e-9)

    def _effective(self, server: Server, now: float) -> int:
        weight, came = self._weight(server), self._came_back.get(server.key)
        if came is None or not weight:
            return weight
        return max(1, weight * min(STEPS, self._steps(came, now) + 1) // STEPS)

    def _stand(self, now: float) -> None:
        self._looked_at = now
        for server in self.service.entries:
            condition, _, flows = self._judge(server)
            effective = self._effective(server, now) if flows is FlowPolicy.NEW else 0
            before = self.standings.get(server.key)
            since = before.since if before is not None and before.condition is condition else now
            apart = self._down_by(server) if flows is not FlowPolicy.NONE else ()
            self.standings[server.key] = ServerStanding(
                condition,
                flows,
                self._weight(server),
                effective,
                since,
                tuple((version, self._lost) for version in sorted(apart)),
            )

    @property
    def _lost(self) -> FlowPolicy:
        """The policy for a server that fails."""
        return FlowPolicy.OLD if self.service.on_failure == KEEP else FlowPolicy.NONE

    def _judge(self, server: Server) -> tuple[Condition, str, FlowPolicy]:
        by_hand, checkings = self.by_hand.get(server.key, ByHand()), self._checkings.get(server.key, ())
        if by_hand.is_disabled:
            return Condition.DISABLED, "disabled by hand", FlowPolicy.NONE
        if not self._is_up(server):
            if any(each.result is None for each in checkings) and not any(
                each.failures for each in checkings
            ):
                return Condition.CHECKING, "no check has ended yet", FlowPolicy.OLD
            return Condition.DOWN, self._found(server), self._lost
        if by_hand.is_drained:
            return Condition.DRAINED, "drained by hand", FlowPolicy.OLD
        if not self._weight(server):
            return Condition.DRAINED, "its weight is 0", FlowPolicy.OLD
        takes = FlowPolicy.NEW if self._is_on_duty(server) else FlowPolicy.OLD
        if any(each.result is None for each in checkings):
            return Condition.CHECKING, "no check has ended yet", takes
        return Condition.UP, self._found(server), takes

    def _is_on_duty(self, server: Server) -> bool:
        """Return whether *server* is one of those that now take new flows: the servers, or the sorry server alone."""
        service = self.service
        if service.sorry is None:
            return True
        if server.key == service.sorry.key and server not in service.servers:
            return not self.has_quorum
        return self.has_quorum or not self._takes_new(service.sorry)


def _only(values: dict[str, T], keys: set[str]) -> dict[str, T]:
    return {key: value for key, value in values.items() if key in keys}
