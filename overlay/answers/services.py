"""Virtual services: how their servers stand, what went to them, and settings by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.host import clock
from overlay.questions import refusal
from overlay.services.health import ByHand, Condition
from peers.service import MOST_WEIGHT

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.balancing import Balancing
    from overlay.link.service_messages import ServerCounters
    from overlay.questions import Answer, TellRows
    from overlay.services.health import Health
    from peers.service import Server, Service

SETTINGS = ("drain", "disable", "enable", "weight")


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Tell all services, or the one that is asked for by ``name``; counters are null where they are not known."""
    name, table = request.get("name"), running.node().table
    if name is not None and name not in table.services:
        return _unknown(name, list(table.services), "service")
    counters = await running.balancing.count()
    rows = [
        _row(running.balancing, service, counters)
        for service in table.services.values()
        if name in {None, service.name}
    ]
    return {"ok": True, "services": rows, "is_complete": counters is not None}


async def set_by_hand(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Set what ``what`` says for the server ``name``, SERVICE/SERVER, until the agent stops or the file changes it."""
    asked, what, weight = request.get("name"), request.get("what"), request.get("weight")
    name, _, server_name = str(asked).partition("/")
    health = running.balancing.watching.healths.get(name)
    if health is None:
        if name in running.node().table.services:
            return refusal(f"this node is no director of {name}: ask one of its directors")
        return _unknown(name, list(running.balancing.watching.healths), "service")
    server = next((each for each in health.service.entries if each.name == server_name), None)
    if server is None:
        return _unknown(server_name, [each.name for each in health.service.entries], f"server of {name}")
    if what not in SETTINGS or (
        what == "weight" and not (type(weight) is int and 0 <= weight <= MOST_WEIGHT)
    ):
        return refusal(f"a server is drained, enabled, disabled, or given a weight from 0 to {MOST_WEIGHT}")
    before = health.by_hand.get(server.key, ByHand())
    await running.balancing.set_by_hand(name, server, _set(before, what, weight))
    return {"ok": True, "server": _server(health, server, None)}


def _set(before: ByHand, what: str, weight: int | None) -> ByHand:
    """Return what is set by hand after *before*."""
    match what:
        case "drain":
            return ByHand(before.weight, is_drained=True)
        case "disable":
            return ByHand(before.weight, is_disabled=True)
        case "weight":
            return ByHand(weight, before.is_drained, before.is_disabled)
    return ByHand()


def _unknown(name: object, known: list[str], what: str) -> Answer:
    return refusal(f"there is no {what} {name!r}", "unknown_service") | {"known": known}


def _row(
    balancing: Balancing, service: Service, counters: dict[tuple[str, str], ServerCounters] | None
) -> Answer:
    health = balancing.watching.healths.get(service.name)
    state, reason = "elsewhere", f"balanced by {balancing.active(service)}"
    servers: list[Answer] = []
    if health is not None:
        state, reason = _state(health)
        servers = [
            _server(health, server, None if counters is None else counters.get((service.name, server.key)))
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


def _server(health: Health, server: Server, counters: ServerCounters | None) -> dict[str, Any]:
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
    }
