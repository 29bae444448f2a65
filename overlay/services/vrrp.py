"""The state machine of one virtual router, without I/O (RFC 9568 section 6, RFC 3768 section 6).

Advertisements, the time and changes of what is tracked go in; advertisements and changes of state come out.  Times are
seconds of any clock that only moves forward.

    INITIALIZE ──start──► BACKUP ◄──────────────► ACTIVE
         ▲                  │   silence, or a resigning      │
         └──── stop, fault ─┴────────────────────────────────┘

A priority that tracking lowers to zero is a fault: the router resigns and is silent until the fault ends.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from overlay.errors import PacketError
from overlay.wire.vrrp import OWNER_PRIORITY, RESIGNING, TTL, Advertisement

if TYPE_CHECKING:
    from collections.abc import Callable

# Specification
LOST = 3  # advertisements in a row; if they do not come, their sender is gone


class RouterState(enum.Enum):
    """Where a virtual router is; the names are those of RFC 9568."""

    INITIALIZE = "initialize"  # not started, stopped, or faulty
    BACKUP = "backup"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """The configuration of one router in its group.

    *priority* is 1 to 255.  *interval* is in seconds between advertisements.  Without *preempts*, a live router keeps
    the addresses whatever its priority; *preempt_delay* is how many seconds a router with a higher priority waits
    before it takes them.
    """

    version: int
    router: int
    priority: int
    interval: float
    addresses: tuple[bytes, ...]
    preempts: bool = True
    preempt_delay: float = 0.0
    password: bytes = b""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this advertisement to the group."""

    advertisement: Advertisement


@dataclass(frozen=True, slots=True)
class Changed:
    """The router is now in *state*, for *reason*, which continues a sentence after "because"."""

    state: RouterState
    reason: str


Output: TypeAlias = Send | Changed


class VirtualRouter:
    """One router of a group, at the address *own*, which decides between equal priorities."""

    def __init__(self, settings: RouterSettings, own: bytes) -> None:
        self._settings, self._own = settings, own
        self._handlers: dict[RouterState, Callable[[Advertisement, bytes, float], list[Output]]] = {
            RouterState.INITIALIZE: lambda *_: [],
            RouterState.BACKUP: self._heard_as_backup,
            RouterState.ACTIVE: self._heard_as_active,
        }
        self.state = RouterState.INITIALIZE
        self.priority = settings.priority  # after tracking
        self.active: bytes | None = None  # the router that has the addresses, if known
        self._interval = settings.interval  # of the active router
        self._due = math.inf
        self._preempts_at: float | None = None  # set when a lower priority is first heard
        self._is_started = False

    def next_deadline(self) -> float:
        """Return when handle_deadline() has something to do; infinity if never."""
        return self._due

    def start(self, now: float) -> list[Output]:
        """Take part from now on, unless there is a fault."""
        self._is_started = True
        if not self.priority:
            return []
        self._interval = self._settings.interval
        if self.priority == OWNER_PRIORITY:
            return self._take_over("it owns the addresses", now)
        return self._fall_back("it has started", now)

    def stop(self) -> list[Output]:
        """Leave the group; waiting routers are informed immediately."""
        self._is_started = False
        return self._leave("it was stopped")

    def change(self, settings: RouterSettings, own: bytes) -> None:
        """Use *settings* and the address *own* from now on; state, priority and deadlines stay."""
        if self.active == self._own:
            self.active = own
        self._settings, self._own = settings, own

    def set_priority(self, priority: int, reason: str, now: float) -> list[Output]:
        """Use *priority* from now on, because something tracked has changed; 0 is a fault, for *reason*."""
        before, self.priority = self.priority, priority
        if not priority:
            return self._leave(reason)
        if not before and self._is_started:
            return self.start(now)
        return []

    def receive(
        self, advertisement: Advertisement, source: bytes, now: float, ttl: int | None = TTL
    ) -> list[Output]:
        """Take an advertisement of this group from the router at *source*; *ttl* is None for unicast from a configured
        router.

        Raises PacketError ``vrrp_ttl``, ``vrrp_version``, ``vrrp_password`` or ``vrrp_interval``, with nothing changed.
        """
        settings = self._settings
        if ttl not in {TTL, None}:
            raise PacketError("vrrp_ttl")
        if advertisement.version != settings.version:
            raise PacketError("vrrp_version")
        if advertisement.password != settings.password:
            raise PacketError("vrrp_password")
        if settings.version == 2 and advertisement.interval != settings.interval:
            raise PacketError(
                "vrrp_interval"
            )  # RFC 3768 section 7.1; version 3 uses that of the active router
        return self._handlers[self.state](advertisement, source, now)

    def handle_deadline(self, now: float) -> list[Output]:
        """Do what is due at *now*."""
        if now < self._due:
            return []
        if self.state is RouterState.ACTIVE:
            self._due = now + self._settings.interval
            return [self._advertise(self.priority)]
        return self._take_over("nobody advertises the addresses", now)

    # States

    def _heard_as_backup(self, heard: Advertisement, source: bytes, now: float) -> list[Output]:
        if heard.priority == RESIGNING:
            self.active = None
            self._due = min(self._due, now + self._skew())  # otherwise repeated resignations would delay it
            return []
        if heard.priority >= self.priority or not self._may_preempt(now):
            if heard.priority >= self.priority:
                self._preempts_at = None
            self.active, self._interval = source, heard.interval
            self._due = now + self._patience()
        return []  # otherwise its time runs out, and this router takes over

    def _heard_as_active(self, heard: Advertisement, source: bytes, now: float) -> list[Output]:
        if heard.priority == RESIGNING:
            self._due = now + self._settings.interval
            return [self._advertise(self.priority)]
        if (heard.priority, source) > (self.priority, self._own):
            self._interval = heard.interval
            return self._fall_back("a router with precedence advertises the addresses", now, source)
        # RFC 9568 section 6.4.3: advertise at once, for switches that have learnt the other's port
        self._due = now + self._settings.interval
        return [self._advertise(self.priority)]

    def _take_over(self, reason: str, now: float) -> list[Output]:
        self.state, self.active, self._preempts_at = RouterState.ACTIVE, self._own, None
        self._due = now + self._settings.interval
        return [self._advertise(self.priority), Changed(RouterState.ACTIVE, reason)]

    def _fall_back(self, reason: str, now: float, active: bytes | None = None) -> list[Output]:
        self.state, self.active, self._preempts_at = RouterState.BACKUP, active, None
        self._due = now + self._patience()
        return [Changed(RouterState.BACKUP, reason)]

    def _leave(self, reason: str) -> list[Output]:
        before, self.state, self._due, self.active = self.state, RouterState.INITIALIZE, math.inf, None
        if before is RouterState.INITIALIZE:
            return []
        sent: list[Output] = [self._advertise(RESIGNING)] if before is RouterState.ACTIVE else []
        return [*sent, Changed(RouterState.INITIALIZE, reason)]

    # Times

    def _may_preempt(self, now: float) -> bool:
        """Return whether to ignore a router with a lower priority, so that its time runs out."""
        if not self._settings.preempts:
            return False
        if self._preempts_at is None:
            self._preempts_at = now + self._settings.preempt_delay
        return now >= self._preempts_at

    def _skew(self) -> float:
        """Return how many seconds this router waits for those with a higher priority."""
        unit = 1.0 if self._settings.version == 2 else self._interval
        return (256 - self.priority) * unit / 256

    def _patience(self) -> float:
        """Return after how many seconds of silence the active router is gone."""
        interval = self._settings.interval if self._settings.version == 2 else self._interval
        return LOST * interval + self._skew()

    def _advertise(self, priority: int) -> Send:
        settings = self._settings
        return Send(
            Advertisement(
                settings.version,
                settings.router,
                priority,
                settings.interval,
                settings.addresses,
                settings.password,
            )
        )
