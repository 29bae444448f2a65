"""All checks of a director and what they say about its services, without I/O.

A check in [checks.NAME] that several services name runs once for each host or container that they have in common. Times
are seconds of any clock that only moves forward.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from overlay.services.checking import Checking
from overlay.services.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from overlay.services.checking import Result
    from overlay.services.health import ByHand, Event
    from peers.addresses import Address
    from peers.service import Check, Server, Service

Key: TypeAlias = tuple[object, ...]
News: TypeAlias = "tuple[str, Event]"
"""The name of a service, and what has happened to its servers."""


@dataclass(frozen=True, slots=True)
class DueCheck:
    """A check to run now: of *server*, on the path of the clients of *service* that connect to *address*."""

    key: Key
    check: Check
    service: Service
    server: Server
    address: Address

    @property
    def port(self) -> int:
        """The port at the virtual address; 0 if the service has every port and the check names none."""
        if self.check.port is not None:
            return self.check.port
        return self.service.ports[0][0] if self.service.ports else 0


@dataclass(frozen=True, slots=True)
class StateChanges:
    """The services whose servers have changed state, and what has happened to them."""

    services: tuple[str, ...]
    news: list[News]


def asked_at(service: Service, versions: Collection[int] = (4, 6)) -> list[Address]:
    """Return the addresses at which servers of *service* are checked: the first of each version that this node has.

    If it has none of them, the first of all, and checks then report what is missing.
    """
    first = {address.version: address for address in reversed(service.addresses)}
    found = [address for address in service.addresses if first[address.version] is address]
    return [address for address in found if address.version in versions] or found[:1]


class Watching:
    """The checks of all services that this node directs, and the health of each service.

    A service with addresses of both IP versions is checked at the first of each: a tunnel, a firewall or a program may
    pass one and not the other.  *random* returns numbers from 0 to 1; without them, checks that begin together would
    stay together.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.healths: dict[str, Health] = {}
        self._probes: dict[Key, tuple[DueCheck, Checking]] = {}
        self._users: dict[Key, list[str]] = {}  # names of the services that each check serves
        self._changed: dict[str, None] = {}  # services with a check whose result changed since the last look
        self._heap: list[tuple[float, int, Key, Checking]] = []
        self._serial = itertools.count()

    def __len__(self) -> int:
        """Return how many checks there are."""
        return len(self._probes)

    def adopt(
        self, services: Mapping[str, Service], now: float, versions: Collection[int] = (4, 6)
    ) -> list[News]:
        """Watch *services* from now on; unchanged checks and servers continue.

        This node can check in the IP *versions* of which it has an address.
        """
        before, self._probes, self._users = self._probes, {}, {}
        news: list[News] = []
        healths: dict[str, Health] = {}
        for name, service in services.items():
            checkings = {
                server.key: [
                    self._checking(service, server, index, check, address, before, now)
                    for address in asked_at(service, versions)
                    for index, check in enumerate(service.checks_of(server))
                ]
                for server in service.entries
            }
            health = self.healths.get(name)
            if health is None:
                healths[name] = Health(service, checkings, now)
            else:
                healths[name] = health
                news += [(name, event) for event in health.succeed(service, checkings, now)]
        self.healths = healths
        self._heap = []
        for key, (_, checking) in self._probes.items():
            self._schedule(key, checking)
        return news

    def next_deadline(self) -> float:
        """Return when due() has something to do; infinity if never."""
        self._forget_stale()
        return self._heap[0][0] if self._heap else math.inf

    def next_step(self) -> float:
        """Return when look() has something to do even if no check ends; infinity if never."""
        return min((health.next_deadline() for health in self.healths.values()), default=math.inf)

    def due(self, now: float, most: int | None = None) -> list[DueCheck]:
        """Return the checks to run now, at most *most*; call finish() or postpone() for each of them."""
        probes: list[DueCheck] = []
        while most is None or len(probes) < most:
            self._forget_stale()
            if not self._heap or self._heap[0][0] > now:
                break
            key = heapq.heappop(self._heap)[2]
            probe, checking = self._probes[key]
            checking.begin()
            probes.append(probe)
        return probes

    def finish(self, probe: DueCheck, result: Result, now: float) -> bool:
        """Take the result of *probe*; it is ignored if the file has changed the check meanwhile.

        Returns whether look() has something to do.
        """
        checking = self._running(probe)
        if checking is None:
            return False
        has_changed = checking.finish(result, now)
        self._schedule(probe.key, checking)
        if has_changed:
            self._changed.update(dict.fromkeys(self._users[probe.key]))
        return has_changed

    def postpone(self, probe: DueCheck, until: float) -> None:
        """Run *probe*, which could not be run, again at *until*."""
        checking = self._running(probe)
        if checking is not None:
            checking.postpone(until)
            self._schedule(probe.key, checking)

    def look(self, now: float) -> StateChanges:
        """Apply results and the steps of slow starts, and return the effect."""
        names = dict.fromkeys(name for name in self._changed if name in self.healths)
        names.update(
            dict.fromkeys(name for name, each in self.healths.items() if each.next_deadline() <= now)
        )
        self._changed = {}
        return StateChanges(
            tuple(names), [(name, event) for name in names for event in self.healths[name].look(now)]
        )

    def set_by_hand(self, service: str, server: str, by_hand: ByHand, now: float) -> list[News]:
        """Apply *by_hand* to the server with the key *server*, until the agent stops or the file changes it."""
        return [(service, event) for event in self.healths[service].set_by_hand(server, by_hand, now)]

    def run_now(self, service: str, server: str, now: float) -> list[DueCheck]:
        """Run the checks of a server at once, and return them, including those that are already running."""
        probes: list[DueCheck] = []
        for key, (probe, checking) in self._probes.items():
            if service in self._users[key] and self._serves(probe, service, server):
                checking.run_now(now)
                self._schedule(key, checking)
                probes.append(probe)
        return probes

    def _serves(self, probe: DueCheck, service: str, key: str) -> bool:
        servers = {each.key: each for each in self.healths[service].service.entries}
        server = servers.get(key)
        return server is not None and (server.peer, server.address) == (
            probe.server.peer,
            probe.server.address,
        )

    def _checking(
        self,
        service: Service,
        server: Server,
        index: int,
        check: Check,
        address: Address,
        before: Mapping[Key, tuple[DueCheck, Checking]],
        now: float,
    ) -> Checking:
        """Return the state of a check of a server: the one that another service shares, the previous one, or a new
        one.
        """
        key: Key = (service.name, server.key, index, address.version)
        if check.name:
            key = (check.name, server.peer, server.address, address.version)
        self._users.setdefault(key, []).append(service.name)
        if key in self._probes:
            return self._probes[key][1]
        known = before.get(key)
        if known is not None and known[0].check == check:
            checking = known[1]
        else:
            checking = Checking(check, now, self._random(), address.version)
        self._probes[key] = (DueCheck(key, check, service, server, address), checking)
        return checking

    def _running(self, probe: DueCheck) -> Checking | None:
        """Return the state of a running check; None if the file has changed or removed it."""
        current = self._probes.get(probe.key)
        return current[1] if current is not None and current[0].check == probe.check else None

    def _schedule(self, key: Key, checking: Checking) -> None:
        if checking.next_deadline() != math.inf:
            heapq.heappush(self._heap, (checking.next_deadline(), next(self._serial), key, checking))

    def _forget_stale(self) -> None:
        """Drop entries at the head of the heap whose check is due at another time, or is gone."""
        while self._heap:
            due, _, key, checking = self._heap[0]
            current = self._probes.get(key)
            if current is not None and current[1] is checking and checking.next_deadline() == due:
                return
            heapq.heappop(self._heap)
