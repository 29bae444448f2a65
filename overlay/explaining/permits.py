"""What peers may send for virtual services, in addition to packets from their own addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.explaining.facts import Facts
    from overlay.host.plan import IPAddress
    from peers.service import Service


def at(facts: Facts, address: IPAddress) -> Iterator[Service]:
    """Yield the services that have *address*."""
    for service in facts.node.table.services.values():
        if address in service.addresses:
            yield service


def why_permitted(facts: Facts, source: IPAddress) -> str | None:
    """Return why peers accept packets from *source*, which is not this node's, for a service; None if they do not."""
    for service in at(facts, source):
        serves = service.directors is None or facts.own in service.directors or service.entries_at(facts.own)
        if serves:
            return f"as an answer of the service {service.name}, of which this node is a server or director"
    return None
