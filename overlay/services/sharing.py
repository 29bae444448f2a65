"""What directors of a service tell each other about its servers, without I/O: manual settings, and servers' states.

A setting is sent until every other director has confirmed it, a few times at most.  Every few seconds each director
reports the states of its servers, with a digest of its settings.  A director that receives a digest other than its own
sends its settings, so that one that was away, or has restarted, gets the current ones.  Directors that share all their
services are a group; a message counts only if it is from a member of the group and about the group's services.

All of it is paced: one message to each other director in PACE seconds, in addition to settings that were just made.
With more than MOST_COMPARED directors, for example where every node is one, they send each other only the digest.
Times are seconds of any clock that only moves forward.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from overlay.services.directors import group_number
from overlay.services.health import Condition
from overlay.services.settings import entry_of, group_of
from overlay.wire.service_control import (
    MOST_SETTINGS,
    MOST_STANDINGS,
    SettingsHeard,
    SettingsTold,
    StandingRow,
    StandingsTold,
    in_messages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from overlay.services.directors import Group
    from overlay.services.health import ByHand, Health
    from overlay.services.settings import Settings
    from peers.service import Server, Service

# Ours
PACE = 0.1  # seconds between two messages to a director
INTERVAL = 5.0  # seconds from one round of standings to the next
PROMPT = 0.3  # after a change
MOST_COMPARED = 32  # directors of a group that exchange the state of servers
LARGE_INTERVAL = 30.0  # seconds between two digests in larger groups
ROUNDS = 3  # that a director may miss before its state counts as unknown
REPEAT = 0.4  # seconds until a setting is sent again to a director that has not confirmed it
TRIES = 5
AT_ONCE = 32  # directors that a setting is sent to, every PACE seconds
ANSWER_INTERVAL = 1.0  # seconds between two answers to a digest of one director
CONDITIONS = tuple(Condition)  # a position here is the number on the wire

ServiceMessage: TypeAlias = SettingsTold | SettingsHeard | StandingsTold


@dataclass(frozen=True, slots=True)
class Say:
    """Send *message* to *peers*, or to every peer with a session if that is None."""

    peers: tuple[str, ...] | None
    message: ServiceMessage


@dataclass(slots=True)
class PendingSetting:
    """A setting on its way to other directors; those in *missing* have not confirmed it yet."""

    message: SettingsTold
    missing: set[str]
    waiting: deque[str]
    due: float
    tries: int = 1

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to send or to wait for."""
        return not self.missing or self.tries > TRIES


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The state of a server at *director* that differs from the one here, and since when; *condition* is None if it is
    unknown.
    """

    director: str
    condition: Condition | None
    effective: int
    since: float


@dataclass(slots=True)
class _Heard:
    """The last message of a director, and when it arrived: the state of servers there, by their entries."""

    at: float = -math.inf
    rows: dict[int, tuple[StandingRow, float]] = field(default_factory=dict)
    answered: float = -math.inf


@dataclass(slots=True)
class _Group:
    """A group of this node: *others* can receive messages, in the order of the file, and *deaf* cannot."""

    number: int
    others: tuple[str, ...]
    deaf: tuple[str, ...]
    services: tuple[str, ...]
    entries: frozenset[int]
    due: float
    heard: dict[str, _Heard] = field(default_factory=dict)

    @property
    def is_compared(self) -> bool:
        return len(self.others) < MOST_COMPARED

    @property
    def patience(self) -> float:
        """How many seconds a report of a director counts."""
        return ROUNDS * (INTERVAL + len(self.entries) / MOST_STANDINGS * PACE)


class Sharing:
    """The groups of this node.  *settings* are those that apply here, *healths* the services by name."""

    def __init__(self, own: str, settings: Settings, healths: Callable[[], Mapping[str, Health]]) -> None:
        self._own, self._settings, self._healths = own, settings, healths
        self._groups: dict[Group, _Group] = {}
        self._by_number: dict[int, Group] = {}
        self._entries: dict[tuple[str, str], int] = {}  # by service and key of a server
        self._services: dict[int, str] = {}  # by entry
        self._restood: set[str] = set()  # services whose servers have changed at another director
        self._tellings: dict[int, PendingSetting] = {}
        self._queue: deque[Say] = deque()
        self._tick = -math.inf

    def adopt(
        self, services: Collection[Service], everybody: Iterable[str], deaf: Collection[str], now: float
    ) -> None:
        """Use *services*, which this node directs, from now on; *everybody* are all nodes that may be directors.

        Those in *deaf* cannot receive messages, for example because their tunnel is unencrypted.
        """
        self._settings.adopt(services)
        self._entries = {
            (service.name, server.key): entry_of(service, server)
            for service in services
            for server in service.entries
        }
        self._services = {entry: service for (service, _), entry in self._entries.items()}
        everybody, before, self._groups = tuple(everybody), self._groups, {}
        for group in dict.fromkeys(map(group_of, services)):
            names = [name for name in group or everybody if name != self._own]
            others = tuple(name for name in names if name not in deaf)
            made = _Group(
                group_number(group),
                others,
                tuple(name for name in names if name in deaf),
                tuple(service.name for service in services if group_of(service) == group),
                frozenset(
                    entry_of(service, server)
                    for service in services
                    if group_of(service) == group
                    for server in service.entries
                ),
                now + PROMPT if others else math.inf,
            )
            if group in before:
                made.heard = {peer: heard for peer, heard in before[group].heard.items() if peer in others}
            for heard in made.heard.values():
                heard.rows = {entry: row for entry, row in heard.rows.items() if entry in made.entries}
            self._groups[group] = made
        self._by_number = {each.number: group for group, each in self._groups.items()}
        for telling in self._tellings.values():
            telling.missing &= {name for each in self._groups.values() for name in each.others}

    # What is sent

    def set_by_hand(
        self, service: Service, server: Server, by_hand: ByHand, wall_ms: int, now: float
    ) -> PendingSetting:
        """Apply a setting here, and report it to the other directors; *wall_ms* is the time of day."""
        group = self._groups[group_of(service)]
        row = self._settings.set(self._entries[service.name, server.key], by_hand, wall_ms)
        identifier = max(self._tellings, default=0) + 1
        telling = PendingSetting(
            SettingsTold(group.number, identifier, (row,)), set(group.others), deque(group.others), now
        )
        if not telling.is_over:
            self._tellings[identifier] = telling
        self.changed(now)
        return telling

    def deaf(self, service: Service) -> tuple[str, ...]:
        """Return the other directors of *service* that cannot receive messages."""
        return self._groups[group_of(service)].deaf

    def changed(self, now: float) -> None:
        """Note that the state of servers changed, so that the others learn of it soon."""
        for group in self._groups.values():
            if group.is_compared and group.others:
                group.due = min(group.due, now + PROMPT)

    def met(self, peer: str, now: float) -> None:
        """Note that a session with *peer* has begun: it may know nothing yet."""
        for group in self._groups.values():
            if peer in group.others:
                group.due = min(group.due, now + PROMPT)

    def next_deadline(self) -> float:
        """Return when handle_deadline() has something to do; infinity if never."""
        rounds = min((group.due for group in self._groups.values()), default=math.inf)
        paced = max(self._tick, -math.inf if self._queue else rounds)
        return min(paced, *(telling.due for telling in self._tellings.values()), math.inf)

    def handle_deadline(self, now: float) -> list[Say]:
        """Send the messages that are due by *now*."""
        said: list[Say] = []
        for identifier, telling in list(self._tellings.items()):
            if telling.due <= now:
                said += self._repeat(telling, now)
            if telling.is_over:
                del self._tellings[identifier]
        for group, each in self._groups.items():
            if each.due <= now and not any(say.message.group == each.number for say in self._queue):
                self._queue += self._round(group, each, now)
                each.due = now + (INTERVAL if each.is_compared else LARGE_INTERVAL)
        if self._queue and self._tick <= now:
            self._tick = now + PACE
            said.append(self._queue.popleft())
        return said

    @staticmethod
    def _repeat(telling: PendingSetting, now: float) -> list[Say]:
        if not telling.waiting:
            telling.tries += 1
            telling.waiting.extend(sorted(telling.missing))
        names = [telling.waiting.popleft() for _ in range(min(AT_ONCE, len(telling.waiting)))]
        telling.due = now + (PACE if telling.waiting else REPEAT)
        peers = tuple(name for name in names if name in telling.missing)
        return [Say(peers, telling.message)] if peers and not telling.is_over else []

    def _round(self, group: Group, each: _Group, now: float) -> Iterable[Say]:
        digest, healths = self._settings.digest(group), self._healths()
        if not each.is_compared:
            return [Say(None, StandingsTold(each.number, digest, ()))]
        rows = [
            StandingRow(
                self._entries[name, key],
                CONDITIONS.index(standing.condition),
                standing.effective,
                min(2**32 - 1, max(0, int(now - standing.since))),
                tuple(version for version, _ in standing.apart),
            )
            for name in each.services
            if name in healths
            for key, standing in healths[name].standings.items()
            if (name, key) in self._entries
        ]
        pieces = in_messages(rows, MOST_STANDINGS)
        return [Say(each.others, StandingsTold(each.number, digest, piece)) for piece in pieces]

    # What is received

    def heard(self, peer: str, message: ServiceMessage, now: float) -> list[Say] | None:
        """Take a *message* of *peer*, and return the replies; None if it is not a director of these services."""
        group = self._by_number.get(message.group)
        each = None if group is None else self._groups[group]
        if group is None or each is None or peer not in each.others:
            return None
        match message:
            case SettingsTold():
                holds = self._settings.hear(group, message.rows)
                if message.identifier and holds:
                    return [Say((peer,), SettingsHeard(message.group, message.identifier))]
            case SettingsHeard():
                telling = self._tellings.get(message.identifier)
                if telling is not None and telling.message.group == message.group:
                    telling.missing.discard(peer)
            case StandingsTold():
                return self._compare(group, each, peer, message, now)
        return []

    def _compare(
        self, group: Group, each: _Group, peer: str, message: StandingsTold, now: float
    ) -> list[Say]:
        heard = each.heard.setdefault(peer, _Heard())
        if each.is_compared:
            heard.at = now
            accepted = [row for row in message.rows if row.entry in each.entries]
            for row in accepted:
                known = heard.rows.get(row.entry)
                if known is None or (known[0].weight, known[0].apart) != (row.weight, row.apart):
                    self._restood.add(self._services[row.entry])
            heard.rows |= {row.entry: (row, now) for row in accepted}
        if message.settings == self._settings.digest(group) or heard.answered + ANSWER_INTERVAL > now:
            return []
        heard.answered = now
        rows = self._settings.rows(group)
        return [
            Say((peer,), SettingsTold(each.number, 0, piece)) for piece in in_messages(rows, MOST_SETTINGS)
        ]

    # Questions

    def unheard(self, service: Service, now: float) -> list[str]:
        """Return the other directors of *service* whose view of its servers is not known."""
        group = self._groups[group_of(service)]
        return [*(name for name in group.others if not self._is_heard(group, name, now)), *group.deaf]

    def differences(self, service: Service, server: Server, now: float) -> list[Disagreement]:
        """Return the reachable directors that have *server* in another condition, or with another weight."""
        group, entry = self._groups[group_of(service)], self._entries[service.name, server.key]
        standing = self._healths()[service.name].standings[server.key]
        found: list[Disagreement] = []
        for name in group.others:
            if not self._is_heard(group, name, now):
                continue
            row, at = group.heard[name].rows.get(entry, (None, now))
            if row is None or at + group.patience < now:
                found.append(Disagreement(name, None, 0, now))
            elif row.condition < len(CONDITIONS):
                condition = CONDITIONS[row.condition]
                if (condition, row.weight) != (standing.condition, standing.effective):
                    found.append(Disagreement(name, condition, row.weight, at - row.since))
        return found

    def restood(self) -> set[str]:
        """Return the services for which elsewhere() may have changed since the last call."""
        found, self._restood = self._restood, set()
        return found

    def elsewhere(self, service: Service) -> list[tuple[int, list[int]]]:
        """Return the effective weights of the entries of *service* at other directors, if they differ from those here.

        Each list follows the IP version that it is for, 0 for both.  The weights are the last ones reported: a director
        that has fallen silent may soon report again.
        """
        by = {address.version: self._elsewhere_by(service, address.version) for address in service.addresses}
        first, *others = by.values()
        if all(each == first for each in others):
            return [(0, weights) for weights in first]
        return [(version, weights) for version, each in by.items() for weights in each]

    def _elsewhere_by(self, service: Service, version: int) -> list[list[int]]:
        entries = [self._entries[service.name, server.key] for server in service.entries]
        standings = [self._healths()[service.name].standings[server.key] for server in service.entries]
        own = tuple(0 if version in dict(each.apart) else each.effective for each in standings)
        found: dict[tuple[int, ...], None] = {}
        group = self._groups[group_of(service)]
        for name in group.others if service.directors is not None else ():
            rows = group.heard[name].rows if name in group.heard else {}
            found[
                tuple(
                    _weight_by(rows[entry][0], version) if entry in rows else weight
                    for entry, weight in zip(entries, own, strict=True)
                )
            ] = None
        found.pop(own, None)
        return list(map(list, found))

    @staticmethod
    def _is_heard(group: _Group, name: str, now: float) -> bool:
        return name in group.heard and group.heard[name].at + group.patience > now


def _weight_by(row: StandingRow, version: int) -> int:
    """Return the weight of a server for new flows of an IP version."""
    return 0 if version in row.apart else row.weight
