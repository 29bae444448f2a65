"""Where another director of a service sees its servers differently than this node does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.host import clock

if TYPE_CHECKING:
    from overlay.balancing.balancing import Balancing
    from peers.service import Server, Service

# Ours
MOST = 16  # directors that are reported for one server


def not_heard(balancing: Balancing, service: Service) -> list[str] | None:
    """Return the directors whose view of the servers is unknown; None if this node is not a director itself."""
    if service.name not in balancing.watching.healths:
        return None
    return balancing.shared.sharing.unheard(service, clock.now())


def differs_at(balancing: Balancing, service: Service, server: Server) -> list[dict[str, Any]]:
    """Return the state of *server* at directors that have it in another state, or with another weight.

    The state is null if that director does not know the server because its peers file differs.
    """
    now = clock.now()
    return [
        {
            "director": each.director,
            "state": None if each.condition is None else each.condition.value,
            "effective_weight": None if each.condition is None else each.effective,
            "since_s": None if each.condition is None else max(0.0, now - each.since),
        }
        for each in balancing.shared.sharing.differences(service, server, now)[:MOST]
    ]
