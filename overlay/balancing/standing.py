"""The state of services at this node, as JSON values: state, quorum, who balances and why, VRRP; and troubles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.host import clock
from overlay.numbers import count
from overlay.services.health import Condition
from overlay.services.vrrp import RouterState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.balancing.balancing import Balancing
    from overlay.lan.router import RouterStatus
    from overlay.services.health import Health
    from peers.service import Server, Service

# States of a service
UP, DEGRADED, SORRY, DOWN, ELSEWHERE = "up", "degraded", "sorry", "down", "elsewhere"

# Ours
SHOWN_SERVERS = 3  # whose problems a note names
SHOWN = 10  # services with a note of their own


def state_of(balancing: Balancing, service: Service) -> tuple[str, str]:
    """Return the state of *service*, and the reason if it is not up."""
    health = balancing.watching.healths.get(service.name)
    if health is None:
        return ELSEWHERE, f"balanced by {balancing.active(service)}"
    if not any(standing.effective for standing in health.standings.values()):
        return DOWN, "no server takes new connections"
    if health.service.sorry is not None and not health.has_quorum:
        return SORRY, "the quorum is lost, and the sorry server answers"
    return (UP, "") if health.has_quorum else (DEGRADED, "the quorum is lost")


def count_states(balancing: Balancing, services: Iterable[Service]) -> dict[str, int]:
    """Return how many of *services* are in each state that occurs, the best first."""
    states = [state_of(balancing, service)[0] for service in services]
    return {state: states.count(state) for state in (UP, DEGRADED, SORRY, DOWN, ELSEWHERE) if state in states}


def quorum_of(health: Health) -> dict[str, Any]:
    """Return the weight of the live servers, and the weights at which the quorum is gained and lost, never below 1."""
    service = health.service
    return {
        "has_quorum": health.has_quorum,
        "live_weight": health.live_weight,
        "quorum": service.quorum,
        "hysteresis": service.hysteresis,
        "gained_at": max(1, service.quorum + service.hysteresis),
        "lost_below": max(1, service.quorum - service.hysteresis),
    }


def director_of(balancing: Balancing, service: Service) -> dict[str, Any]:
    """Return the directors of *service* (null for every node), the one that is in charge, and why."""
    if service.directors is None:
        active, reason = balancing.node.own.name, "each node balances the connections that start there"
    else:
        active, reason = (
            balancing.directors.active(service.directors),
            balancing.directors.why(service.directors),
        )
    return {
        "directors": None if service.directors is None else list(service.directors),
        "active": active,
        "is_here": active == balancing.node.own.name,
        "reason": reason,
    }


def vrrp_of(balancing: Balancing, service: Service) -> list[dict[str, Any]]:
    """Return the state of the virtual routers of *service* at this node, one for each IP version of its addresses."""
    if service.vrrp is None:
        return []
    interface = service.vrrp.interface_of(balancing.node.own.name)
    return [
        {
            "group": router.group,
            "ip_version": router.version,
            "router": service.vrrp.router,
            "interface": interface,
            "state": router.state.value,
            "reason": router.reason,
            "since_s": clock.now() - router.since,
            "priority": router.priority,
            "active_router": None if router.active is None else str(router.active),
            "refused": router.refused,
            "unsent": router.unsent,
        }
        for router in balancing.lan.status()
        if router.group == service.vrrp.name
    ]


def place_of(balancing: Balancing, server: Server) -> dict[str, Any]:
    """Return where *server* is: the addresses of its host or container, and the tunnel to it, null for this node."""
    peer = balancing.node.table.peers.get(server.peer)
    tunnel = balancing.node.tunnels.get(server.peer)
    addresses = (() if peer is None else peer.addresses) if server.address is None else (server.address,)
    return {
        "real_addresses": [str(address) for address in addresses],
        "tunnel": None if tunnel is None else tunnel.encapsulation.name,
    }


def troubles_of(balancing: Balancing, services: Iterable[Service]) -> list[str]:
    """Return a sentence with cause and remedy for everything that is wrong with *services* here."""
    found = list(services)
    wrong = [trouble for each in found if (trouble := _service_trouble(balancing, each)) is not None]
    notes = wrong[:SHOWN]
    if len(wrong) > SHOWN:
        notes.append(f"{count(len(wrong) - SHOWN, 'more service')} in trouble: see `overlay services`")
    groups = {each.vrrp.name for each in found if each.vrrp is not None}
    notes += [
        _router_trouble(router)
        for router in balancing.lan.status()
        if router.group in groups and router.state is RouterState.INITIALIZE
    ]
    return (
        notes
        + [
            f"neighbors on the LAN get no answers about virtual addresses: {trouble}"
            for trouble in balancing.lan.troubles
        ]
        + _conflicts(balancing)
    )


def _conflicts(balancing: Balancing) -> list[str]:
    conflicts = balancing.lan.conflicts()
    notes = [str(each) for each in conflicts[:SHOWN]]
    if len(conflicts) > SHOWN:
        notes.append(
            f"other hosts claim {count(len(conflicts) - SHOWN, 'more virtual address', 'more virtual addresses')}: "
            "the log of this agent names them"
        )
    return notes


def _service_trouble(balancing: Balancing, service: Service) -> str | None:
    state, reason = state_of(balancing, service)
    if state in {UP, ELSEWHERE}:
        return None
    health = balancing.watching.healths[service.name]
    if not service.entries:
        return f"the service {service.name} is {state}: it has no servers; write `servers`"
    idle = [
        (server, standing)
        for server in service.servers
        for standing in [health.standings[server.key]]
        if standing.condition is not Condition.UP
    ]
    causes = [
        f"{server.name} is {each.condition.value}" + (f" ({reason})" if reason else "")
        for server, each in idle
        for reason in [health.reason(server)]
    ]
    if len(causes) > SHOWN_SERVERS:
        causes[SHOWN_SERVERS:] = [f"{len(causes) - SHOWN_SERVERS} more are not up"]
    weights = "" if state == DOWN else f" with a weight of {health.live_weight} of {service.quorum}"
    told = f"; {', '.join(causes)}" if causes else ""
    failed = [server.name for server, each in idle if each.condition is Condition.DOWN]
    by_hand = [server.name for server, _ in idle if health.by_hand.get(server.key)]
    remedies = [f"`overlay services check {service.name}/{failed[0]}` tells more"] if failed else []
    remedies += (
        [f"`overlay services enable {service.name}/{by_hand[0]}` undoes what was set by hand"]
        if by_hand
        else []
    )
    remedies = remedies or [f"`overlay services {service.name}` shows all servers"]
    return f"the service {service.name} is {state}: {reason}{weights}{told}: {' and '.join(remedies)}"


def _router_trouble(router: RouterStatus) -> str:
    return f"this node does not take part in the VRRP group {router.group} for IPv{router.version}: {router.reason}"
