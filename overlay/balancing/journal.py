"""The log lines about services, and the events of hooks for them."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from overlay.services.directors import ActiveChanged
from overlay.services.health import QuorumChanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.hooks.happening import Tell
    from overlay.lan.conflicts import Conflict
    from overlay.lan.router import RouterStatus
    from overlay.services.directors import Output
    from overlay.services.health import ByHand
    from overlay.services.watching import DueCheck, News

# Ours
QUIET = 60.0  # seconds between two lines about the same trouble

log = logging.getLogger("overlay")


def log_active(outputs: Iterable[Output]) -> None:
    """Log which director balances services now."""
    for output in outputs:
        if isinstance(output, ActiveChanged):
            log.info("services balanced by director=%s because %s", output.active, output.reason)


def log_news(news: Iterable[News]) -> None:
    """Log what has happened to servers and quorums."""
    for name, event in news:
        if isinstance(event, QuorumChanged):
            what = "has its quorum" if event.has_quorum else "has lost its quorum"
            log.warning("service %s service=%s live=%d needed=%d", what, name, event.live, event.needed)
        else:
            state = "up" if event.is_up else "down"
            if event.version is not None:  # it is still up by the other IP version
                state += f"{' again' if event.is_up else ''} by IPv{event.version}"
            log.warning("server %s service=%s server=%s: %s", state, name, event.server.name, event.reason)


def tell_news(news: Iterable[News], tell: Tell) -> None:
    """Tell the hooks what has happened to servers and quorums."""
    for name, event in news:
        if isinstance(event, QuorumChanged):
            told: dict[str, Any] = {
                "has_quorum": event.has_quorum,
                "live_weight": event.live,
                "needed_weight": event.needed,
            }
        else:
            told = {"server": event.server.name, "is_up": event.is_up, "reason": event.reason}
        tell("service", service=name, **told)


def log_by_hand(service: str, server: str, by_hand: ByHand) -> None:
    """Log the settings that an operator made, here or at another director, for the server with that key."""
    what = "drained" if by_hand.is_drained else "disabled" if by_hand.is_disabled else "enabled"
    weight = "-" if by_hand.weight is None else by_hand.weight
    log.info("server set by hand service=%s server=%s to=%s weight=%s", service, server, what, weight)


def log_router(status: RouterStatus) -> None:
    """Log the new state of a virtual router."""
    log.info(
        "vrrp router %s group=%s version=%d priority=%d: %s",
        status.state.value,
        status.group,
        status.version,
        status.priority,
        status.reason,
    )


def log_conflict(conflict: Conflict) -> None:
    """Log that another host has begun to claim an address that is here."""
    log.warning(
        "virtual address claimed by another host address=%s interface=%s mac=%s: %s",
        conflict.address,
        conflict.interface,
        conflict.mac.hex(":"),
        conflict,
    )


class Troubles:
    """What keeps this node from checking, logged now and then, because there may be thousands of checks."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}  # when, by subject

    def log_late(self, late: float, limit: int | None, now: float) -> None:
        """Log that checks wait for others to end: for lack of time or, with a *limit*, of descriptors."""
        if not self._is_news("late", now):
            return
        if limit is None:
            log.warning(
                "checks of services are late by %d s: this host does not have enough time for so many; check less "
                "often, or add directors",
                late,
            )
        else:
            log.warning(
                "checks of services are late by %d s: the agent may open no more than %d files; raise its limit "
                "(LimitNOFILE= in its unit, or ulimit -Hn)",
                late,
                limit,
            )

    def log_not_asked(self, probe: DueCheck, reason: str, now: float) -> None:
        """Log that a check could not be made, which says nothing about the server."""
        if self._is_news(reason, now):
            log.warning(
                "check not made, trying again service=%s server=%s: %s",
                probe.service.name,
                probe.server.name,
                reason,
            )

    def _is_news(self, what: str, now: float) -> bool:
        if now < self._logged.get(what, -math.inf) + QUIET:
            return False
        self._logged[what] = now
        return True
