"""Which director of a service the overlay sends to, without I/O: the first in the order of the file that is alive.

Directors tell each other several times a second that they are alive; one that does not hear from any before it for a
while takes the service over and tells all peers.  All directors have the same tables and balance whatever reaches them,
so two that are active at once, for example when the network between them is cut, do no harm.

A peer that is not a director follows what directors say, the latest first: that they are active, and which are gone.
Services with the same directors fail over together; they are a group.  Times are seconds of any clock that only moves
forward.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from overlay.wire.control import MAXIMUM_ENTRIES, Presence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Group: TypeAlias = "tuple[str, ...]"
"""The names of directors, in the order of the file."""

# Ours
HEARTBEAT = 0.4  # seconds between two signs of life
PATIENCE = 1.2  # seconds without one after which a director counts as gone
REPEATS = (0.4, 1.0)  # seconds after a takeover at which it is announced again: a message may be lost
REFRESH = 10.0  # seconds between two messages of the active director to all peers
STANDBY_REFRESH = 60.0  # of the others, which keeps the sessions in which they would announce a takeover
CLAIM_TIME = 3 * REFRESH + 2.0  # seconds for which a claim holds, or the report that a director is gone


@dataclass(frozen=True, slots=True)
class Announce:
    """Send *presence* to *peers*, or to every peer with a session if that is None."""

    peers: tuple[str, ...] | None
    presence: Presence


@dataclass(frozen=True, slots=True)
class ActiveChanged:
    """Packets to the group now go to *active*, for *reason*, which continues a sentence after "because"."""

    group: Group
    active: str
    reason: str


Output: TypeAlias = Announce | ActiveChanged


def group_number(group: Group) -> int:
    """Return the number of a group on the wire, of 32 bits."""
    return zlib.crc32("\0".join(group).encode())


@dataclass(slots=True)
class _State:
    """One group, as this node sees it."""

    active: str
    knows_at: float  # when every live director has been heard from; infinity once that is past
    heard: dict[str, float] = field(default_factory=dict)  # when each director stops counting as alive
    gone: dict[str, float] = field(default_factory=dict)  # when each stops counting as gone
    is_active: bool = False  # this node itself
    beat: float = math.inf  # when the other directors must be informed
    tells: list[float] = field(default_factory=list)  # when all peers must be


class Directors:
    """The groups of all services, at the node *own*."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._groups: dict[Group, _State] = {}
        self._by_number: dict[int, Group] = {}
        self._unheard: frozenset[str] = frozenset()

    def adopt(self, groups: Iterable[Group], now: float, unheard: Collection[str] = ()) -> list[Output]:
        """Use *groups* from now on; what is known about unchanged ones stays.

        Peers in *unheard* cannot tell this node that they are alive, for example because their tunnel is unencrypted;
        they count as alive.
        """
        self._unheard = frozenset(unheard)
        before = self._groups
        self._groups = {group: before.get(group) or self._begin(group, now) for group in groups}
        self._by_number = {group_number(group): group for group in self._groups}
        return self.handle_deadline(now)

    def active(self, group: Group) -> str:
        """Return the director that packets to *group* go to."""
        return self._groups[group].active

    def is_active(self, group: Group) -> bool:
        """Return whether this node is the active director of *group*."""
        return self._groups[group].is_active

    def why(self, group: Group) -> str:
        """Return why packets to *group* go to the director that active() returns; it continues after "because"."""
        state = self._groups[group]
        active = state.active
        before = group[: group.index(active)]
        if self._own not in group:
            if active in state.heard:
                return f"{active} says so"
            return f"{_listed(before)} gone" if before else "it is the first of its directors"
        if active == self._own:
            return f"{_listed(before)} silent" if before else "it is the first of its directors"
        if active in state.heard:
            return f"{active} comes before this node and is alive"
        if active in self._unheard:
            return f"{active} comes before this node and cannot be heard through its tunnel, so it counts as alive"
        return "it is not known yet which directors are alive"

    def next_deadline(self) -> float:
        """Return when handle_deadline() has something to do; infinity if never."""
        return min(map(self._due, self._groups.values()), default=math.inf)

    def heard(self, peer: str, presence: Presence, now: float) -> list[Output]:
        """Take the *presence* of *peer*; it is ignored unless the peer is a director of that group."""
        group = self._by_number.get(presence.group)
        if group is None or peer not in group or peer == self._own:
            return []
        state = self._groups[group]
        state.gone.pop(peer, None)
        if self._own in group:
            # A director that did not hear this node may have claimed the service, and peers follow the newest claim.
            is_rival = state.is_active and (presence.is_active or peer not in state.heard)
            if is_rival and not (state.tells and state.tells[0] <= now + REPEATS[-1]):
                state.tells = [now, *(now + pause for pause in REPEATS)]
            state.heard[peer] = now + PATIENCE
        elif presence.is_active:
            state.heard[peer] = now + CLAIM_TIME
            for place in presence.gone:
                if place < len(group) and group[place] != peer:
                    state.heard.pop(group[place], None)
                    state.gone[group[place]] = now + CLAIM_TIME
        return self._look(group, state, f"{peer} said so", now)

    def met(self, peer: str) -> list[Output]:
        """Note that a session with *peer* has begun: it may have missed earlier messages."""
        return [
            Announce((peer,), self._presence(group, state))
            for group, state in self._groups.items()
            if self._own in group and state.is_active
        ]

    def lost(self, peer: str, now: float) -> list[Output]:
        """Note that *peer* does not answer."""
        outputs: list[Output] = []
        for group, state in self._groups.items():
            if peer in group and peer != self._own:
                state.heard.pop(peer, None)
                state.gone[peer] = now + CLAIM_TIME
                outputs += self._look(group, state, f"{peer} does not answer", now)
        return outputs

    def handle_deadline(self, now: float) -> list[Output]:
        """Send what is due by *now*, and take over groups that no other director has."""
        outputs: list[Output] = []
        for group, state in self._groups.items():
            outputs += self._look(group, state, None, now)
            if state.beat <= now:
                state.beat = now + HEARTBEAT
                others = tuple(name for name in group if name != self._own)
                if others:
                    outputs.append(Announce(others, self._presence(group, state)))
            if state.tells and state.tells[0] <= now:
                state.tells = [at for at in state.tells if at > now]
                if not state.tells:
                    state.tells = [now + (REFRESH if state.is_active else STANDBY_REFRESH)]
                outputs.append(Announce(None, self._presence(group, state)))
        return outputs

    # One group

    def _begin(self, group: Group, now: float) -> _State:
        state = _State(group[0], now + PATIENCE)
        if self._own in group:
            state.beat, state.tells = now, [now + STANDBY_REFRESH]
        return state

    @staticmethod
    def _due(state: _State) -> float:
        """Return when something must be sent, or the active director may change because time passes."""
        waits = [state.beat, *state.tells[:1], *state.heard.values(), *state.gone.values()]
        return min(*waits, state.knows_at)

    def _look(self, group: Group, state: _State, reason: str | None, now: float) -> list[Output]:
        """Determine which director is active now; without a *reason* for a change, it is that of why()."""
        for known in (state.heard, state.gone):
            for name in [name for name, until in known.items() if until <= now]:
                del known[name]
        before, was_active = state.active, state.is_active
        if self._own in group:
            ahead = group[: group.index(self._own)]
            alive = next((name for name in ahead if name in state.heard or name in self._unheard), None)
            # A director that has just started does not know yet which others are alive.
            if state.knows_at <= now or not ahead:
                state.knows_at = math.inf
            knows = state.knows_at == math.inf
            state.is_active = alive is None and knows
            state.active = alive or (self._own if knows else group[0])
        else:
            state.knows_at = math.inf
            state.active = next(
                (name for name in group if name in state.heard),
                next((name for name in group if name not in state.gone), group[0]),
            )
        outputs: list[Output] = []
        if state.active != before or state.is_active != was_active:
            outputs.append(ActiveChanged(group, state.active, reason or self.why(group)))
        if state.is_active and not was_active:
            state.tells = [now, *(now + pause for pause in REPEATS)]
        return outputs

    def _presence(self, group: Group, state: _State) -> Presence:
        gone: tuple[int, ...] = ()
        if state.is_active:
            lost = [
                place for place, name in enumerate(group) if name != self._own and name not in state.heard
            ]
            gone = tuple(
                lost[:MAXIMUM_ENTRIES]
            )  # a message has no room for more, and the active one itself is heard from
        return Presence(group_number(group), state.is_active, gone)


def _listed(names: Group) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
