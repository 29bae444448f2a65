"""What virtual services do to packets to and from their addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.explaining.explanation import NODE, Path
from overlay.explaining.permits import at
from overlay.explaining.tunnel import to_peer
from peers.service import DIRECTOR, PROTOCOLS

if TYPE_CHECKING:
    from overlay.explaining.explanation import Explanation
    from overlay.explaining.facts import Facts
    from overlay.explaining.flow import Flow
    from overlay.host.plan import IPAddress
    from peers.service import Service


def is_virtual(facts: Facts, flow: Flow) -> bool:
    """Return whether the destination is an address of a service."""
    return any(True for _ in at(facts, flow.destination))


def matching(facts: Facts, flow: Flow) -> list[Service]:
    """Return the services that *flow* may be for."""
    return [
        service
        for service in at(facts, flow.destination)
        if flow.protocol in {None, *service.protocols}
        and (
            flow.port is None
            or not service.ports
            or any(first <= flow.port <= last for first, last in service.ports)
        )
    ]


def through(facts: Facts, flow: Flow, source: IPAddress | None, found: Explanation) -> None:
    """Explain a packet to a virtual address."""
    candidates = matching(facts, flow)
    directed = [each for each in at(facts, flow.destination) if each.is_directed_by(facts.own)]
    if not candidates and directed:
        if flow.protocol is not None and flow.protocol not in PROTOCOLS:
            text = (
                f"{flow.destination} is a virtual address, and {flow.protocol} is not a protocol of services"
            )
            found.refuse(NODE, text, "service_protocol")
        else:
            names = ", ".join(each.name for each in directed)
            found.refuse(
                NODE, f"{flow.destination} is an address of {names}, but not at that port", "service_port"
            )
        return
    if len(candidates) > 1:
        names = ", ".join(each.name for each in candidates)
        found.doubt(
            f"{flow.destination} is an address of several services ({names}): name the port with --port"
        )
    service = next(iter(candidates), None) or next(at(facts, flow.destination))
    active = facts.active_director(service)
    found.service = {
        "name": service.name,
        "director": active,
        "scheduler": service.scheduler,
        "persistence_seconds": service.persistence,
        "server": None,
        "servers": [each.name for each in service.servers],
    }
    if active != facts.own:
        found.say("service", f"{service.name}, which {active} balances")
        _to_peer(facts, active, source, found)
        return
    found.say("service", f"{service.name}, which this node balances by {service.scheduler}")
    _to_server(facts, service, source, found)


def _to_server(facts: Facts, service: Service, source: IPAddress | None, found: Explanation) -> None:
    choice = facts.chosen.get(service.name)
    assert found.service is not None
    if choice is None or not choice.takers:
        found.refuse(NODE, f"no server of {service.name} takes new flows", "service_empty")
        return
    found.service["servers"] = [each.name for each in choice.takers]
    server = choice.server
    if server is None:
        names = ", ".join(f"{each.name} at {each.peer}" for each in choice.takers)
        found.say("server", f"one of {names}: {choice.why}")
        found.path = Path.TUNNEL
        return
    found.service["server"] = server.name
    found.say("server", f"{server.name} at {server.peer}: {choice.why}")
    if server.peer == facts.own:
        found.path = Path.HERE
        found.say("here", "that server is this host, or behind it")
        return
    _to_peer(facts, server.peer, source, found, f"this node is a director of {service.name}")


def _to_peer(
    facts: Facts, name: str, source: IPAddress | None, found: Explanation, is_permitted: str | None = None
) -> None:
    to_peer(facts, facts.roster.by_name[name], source, found, is_permitted=is_permitted)


def answering(facts: Facts, source: IPAddress | None) -> Service | None:
    """Return the service whose answers go back through its director, if a packet from *source* is such an answer."""
    if source is None:
        return None
    for service in at(facts, source):
        if service.reply == DIRECTOR and service.entries_at(facts.own):
            return service
    return None


def give_back(facts: Facts, service: Service, source: IPAddress | None, found: Explanation) -> None:
    """Explain an answer that goes back through a director."""
    active = facts.active_director(service)
    found.say(
        "service",
        f"an answer of {service.name}, which goes back through the director that the client came through",
    )
    if active == facts.own:
        found.path = Path.HERE
        return
    _to_peer(facts, active, source, found, f"it is a director of {service.name}")


def admitting(facts: Facts, flow: Flow) -> Service | None:
    """Return the service for which this node accepts a packet from a source that no peer has."""
    assert flow.source is not None
    for service in matching(facts, flow):
        others = service.directors is None or any(each != facts.own for each in service.directors)
        if others and service.entries_at(facts.own):
            return service
    for service in at(facts, flow.source):
        return service
    return None
