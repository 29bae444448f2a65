"""Virtual services: how their servers stand, and what went to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.balancing.traffic import measure, tell_rate
from overlay.host import clock
from overlay.questions import refusal
from overlay.services.health import Condition

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.balancing.balancing import Balancing
    from overlay.balancing.counting import Rate
    from overlay.balancing.traffic import Traffic
    from overlay.link.service_messages import ServerCounters
    from overlay.questions import Answer, TellRows
    from overlay.services.health import Health
    from peers.service import Server, Service


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Tell all services, or the one that is asked for by ``name``; counters are null where they are not known."""
    name, table = request.get("name"), running.node().table
    if name is not None and name not in table.services:
        return unknown(name, list(table.services), "service")
    traffic = await measure(running.balancing.counting, running.balancing.numbers)
    rows = [
        _row(running.balancing, service, traffic)
        for service in table.services.values()
        if name in {None, service.name}
    ]
    return {"ok": True, "services": rows, "is_complete": traffic.now is not None}


def unknown(name: object, known: list[str], what: str) -> Answer:
    """Refuse a name that no *what* has, with those that there are."""
    return refusal(f"there is no {what} {name!r}", "unknown_service") | {"known": known}


def _row(balancing: Balancing, service: Service, traffic: Traffic) -> Answer:
    health = balancing.watching.healths.get(service.name)
    state, reason = "elsewhere", f"balanced by {balancing.active(service)}"
    servers: list[Answer] = []
    if health is not None:
        state, reason = _state(health)
        servers = [
            tell_server(health, server, *traffic.server(service.name, server.key))
            for server in service.entries
        ]
    return {
        "name": service.name,
        "addresses": [str(address) for address in service.addresses],
        "ports": [f"{first}" if first == last else f"{first}-{last}" for first, last in service.ports],
        "protocols": list(service.protocols),
        "scheduler": service.scheduler,
        "state": state,
        "reason": reason,
        "servers": servers,
    }


def _state(health: Health) -> tuple[str, str]:
    """Return how a service stands, and why."""
    takes = [standing for standing in health.standings.values() if standing.effective]
    if not takes:
        return "down", "no server takes new connections"
    if health.service.sorry is not None and not health.has_quorum:
        return "sorry", "the quorum is lost, and the sorry server answers"
    return ("up", "") if health.has_quorum else ("degraded", "the quorum is lost")


def tell_server(
    health: Health, server: Server, counters: ServerCounters | None = None, rate: Rate | None = None
) -> dict[str, Any]:
    """Return what is told of *server*; counters and rates are null where they are not known."""
    standing = health.standings[server.key]
    return {
        "name": server.name,
        "peer": server.peer,
        "address": None if server.address is None else str(server.address),
        "port": server.port,
        "weight": standing.weight,
        "effective_weight": standing.effective,
        "state": Condition(standing.condition).value,
        "reason": standing.reason,
        "since_s": clock.now() - standing.since,
        "set_by_hand": bool(health.by_hand.get(server.key)),
        "active_flows": None if counters is None else counters.active,
        "inactive_flows": None if counters is None else counters.inactive,
        "packets": None if counters is None else counters.packets,
        "bytes": None if counters is None else counters.bytes,
        "connections": None if counters is None else counters.connections,
        **tell_rate(rate),
    }
