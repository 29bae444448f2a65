"""What the log says of services."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from overlay.services.directors import ActiveChanged
from overlay.services.health import QuorumChanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.lan.router import RouterStatus
    from overlay.services.directors import Output
    from overlay.services.watching import News
    from peers.service import Server

log = logging.getLogger("overlay")


def log_active(outputs: Iterable[Output]) -> None:
    """Log which director services are sent to now."""
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
            log.warning("server %s service=%s server=%s: %s", state, name, event.server.name, event.reason)


def log_by_hand(service: str, server: Server) -> None:
    """Log that an operator has set how *server* stands."""
    log.info("server set by hand service=%s server=%s", service, server.name)


def log_router(status: RouterStatus) -> None:
    """Log the state that a virtual router has come to."""
    log.info(
        "vrrp router %s group=%s version=%d priority=%d: %s",
        status.state.value,
        status.group,
        status.version,
        status.priority,
        status.reason,
    )
