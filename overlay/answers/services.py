"""Virtual services: the state of their servers, and their traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.answers import elsewhere
from overlay.balancing import standing
from overlay.balancing.traffic import measure, tell_rate
from overlay.host import clock
from overlay.questions import refusal
from overlay.services.health import Condition, FlowPolicy

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.balancing.balancing import Balancing
    from overlay.balancing.counting import Rate
    from overlay.balancing.traffic import Traffic
    from overlay.link.service_messages import ServerCounters
    from overlay.questions import Answer, TellRows
    from overlay.services.health import Health
    from peers.service import Server, Service


TAKES = {FlowPolicy.NEW: "new", FlowPolicy.OLD: "known", FlowPolicy.NONE: "nothing"}
"""Which packets a server gets: those of new flows too, only those of its flows, or none."""


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Return all services, or the one called ``name``; counters that are not known are null."""
    name = request.get("name")
    if name is not None and name not in list(running.services):
        return unknown(name, list(running.services), "service")
    traffic = await measure(running.balancing.counting, running.balancing.numbers)
    services = [each for each in running.services.values() if name in {None, each.name}]
    return {
        "ok": True,
        "services": [_row(running.balancing, service, traffic) for service in services],
        "notes": standing.troubles_of(running.balancing, services),
        "rates_over_s": traffic.seconds,
        "drops": traffic.drops,
        "is_complete": traffic.now is not None,
    }


def unknown(name: object, known: list[str], what: str) -> Answer:
    """Refuse a name that no *what* has; the refusal lists the *known* ones."""
    return refusal(f"there is no {what} {name!r}", "unknown_service") | {"known": known}


def _row(balancing: Balancing, service: Service, traffic: Traffic) -> Answer:
    health = balancing.watching.healths.get(service.name)
    state, reason = standing.state_of(balancing, service)
    servers: list[Answer] = []
    if health is not None:
        servers = [
            tell_server(health, server, *traffic.server(service.name, server.key))
            | standing.place_of(balancing, server)
            | {"differs_at": elsewhere.differs_at(balancing, service, server)}
            for server in service.entries
        ]
    return {
        "name": service.name,
        "addresses": [str(address) for address in service.addresses],
        "ports": [f"{first}" if first == last else f"{first}-{last}" for first, last in service.ports],
        "protocols": list(service.protocols),
        "scheduler": service.scheduler,
        "persistence": service.persistence,
        "persistence_prefix": {f"ipv{version}": size for version, size in service.persistence_prefix.items()},
        "one_packet": service.one_packet,
        "state": state,
        "reason": reason,
        "director": standing.director_of(balancing, service),
        "vrrp": standing.vrrp_of(balancing, service),
        "not_heard": elsewhere.not_heard(balancing, service),
        "quorum": None if health is None else standing.quorum_of(health),
        **_totals(service, traffic, is_here=health is not None),
        "servers": servers,
    }


def _totals(service: Service, traffic: Traffic, *, is_here: bool) -> Answer:
    """Return the counters of *service*; those that are not known are null, such as when another node balances it."""
    totals, rate = traffic.service(service.name) if is_here else (None, None)
    rows = [traffic.server(service.name, server.key)[0] for server in service.entries] if is_here else [None]
    known = [row for row in rows if row is not None]
    is_known = totals is not None and len(known) == len(rows)
    return {
        "active_flows": sum(row.active for row in known) if is_known else None,
        "inactive_flows": sum(row.inactive for row in known) if is_known else None,
        "connections": None if totals is None else totals.connections,
        "packets": None if totals is None else totals.packets,
        "bytes": None if totals is None else totals.bytes,
        **tell_rate(rate),
        "drops": None if totals is None else totals.drops,
    }


def tell_server(
    health: Health, server: Server, counters: ServerCounters | None = None, rate: Rate | None = None
) -> dict[str, Any]:
    """Return the description of *server*; counters and rates that are not known are null."""
    stands = health.standings[server.key]
    return {
        "name": server.name,
        "peer": server.peer,
        "address": None if server.address is None else str(server.address),
        "port": server.port,
        "weight": stands.weight,
        "effective_weight": stands.effective,
        "state": Condition(stands.condition).value,
        "reason": health.reason(server),
        "since_s": clock.now() - stands.since,
        "set_by_hand": bool(health.by_hand.get(server.key)),
        "active_flows": None if counters is None else counters.active,
        "inactive_flows": None if counters is None else counters.inactive,
        "packets": None if counters is None else counters.packets,
        "bytes": None if counters is None else counters.bytes,
        "connections": None if counters is None else counters.connections,
        **tell_rate(rate),
        "takes": TAKES[stands.flows],
        "takes_by": {f"ipv{version}": TAKES[flows] for version, flows in stands.apart},
        "upper": server.upper,
        "lower": server.lower,
    }
