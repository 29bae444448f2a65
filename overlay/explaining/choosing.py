"""Which server of a service a flow would get, as far as that can be determined without starting one."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.services.health import FlowPolicy
from overlay.services.schedulers import SCHEDULERS, Hashed, Loads, Real

if TYPE_CHECKING:
    from overlay.explaining.flow import Flow
    from overlay.host.plan import IPAddress
    from overlay.services.health import Health
    from peers.service import Server, Service


@dataclass(frozen=True, slots=True)
class Choice:
    """The *server* of a flow, None if it is chosen only when the flow begins; *why*, in words.

    *takers* are the servers that take new flows, possibly none.
    """

    server: Server | None
    why: str
    takers: tuple[Server, ...]


def choose(health: Health, flow: Flow, source: IPAddress | None, known: str | None = None) -> Choice:
    """Return the server of a service for *flow* from *source*.

    *known* is the name of the server to which an earlier flow already binds the client.  Maglev's table is computed for
    this, which takes a few milliseconds.
    """
    service, version = health.service, flow.destination.version
    takers = tuple(
        each for each in service.entries if each in service.servers and _weight(health, each, version)
    )
    sorry = service.sorry
    if sorry is not None and (not health.has_quorum or not takers):
        return Choice(sorry, "the sorry server, because the quorum is lost", (sorry,))
    if not takers:
        return Choice(None, "no server takes new flows", ())
    if known is not None:
        server = next((each for each in takers if each.name == known), None)
        if server is not None:
            return Choice(server, "the client has it already", takers)
    if len(takers) == 1:
        return Choice(takers[0], "it is the only one that takes new flows", takers)
    hash_ = _hash(service, flow, source)
    if hash_ is None:
        how = "with the next flow"
        if SCHEDULERS[service.scheduler].hashed is Hashed.FLOW:
            how = "by the client's address and port: add --source-port to see which"
        return Choice(None, f"{service.scheduler} chooses {how}", takers)
    scheduler = SCHEDULERS[service.scheduler].make()
    reals = [
        Real(each.key, _weight(health, each, version), index, each.upper, each.lower)
        for index, each in enumerate(service.servers)
    ]
    scheduler.set_servers(reals)
    while scheduler.prepare():
        pass
    loads = Loads([0] * len(reals), [0] * len(reals))
    index = scheduler.choose(hash_, loads)
    if index is None:
        return Choice(None, "no server takes new flows", ())
    return Choice(service.servers[index], f"{service.scheduler} always chooses it for this client", takers)


def _weight(health: Health, server: Server, version: int) -> int:
    """Return the weight of *server* in the scheduler for an IP version."""
    standing = health.standings[server.key]
    flows = dict(standing.apart).get(version, standing.flows)
    return standing.effective if standing.flows is FlowPolicy.NEW and flows is FlowPolicy.NEW else 0


def _hash(service: Service, flow: Flow, source: IPAddress | None) -> int | None:
    """Return the hash that the scheduler uses, as the forwarder computes it; None if it uses none, or depends on
    something unknown.
    """
    hashed = SCHEDULERS[service.scheduler].hashed
    if hashed is Hashed.ADDRESS:
        return zlib.crc32(flow.destination.packed)
    if hashed is Hashed.NOTHING or source is None:
        return None
    if hashed is Hashed.FLOW and not service.persistence:
        if flow.source_port is None:
            return None
        return zlib.crc32(flow.source_port.to_bytes(2, "big"), zlib.crc32(source.packed))
    return zlib.crc32(network_of(service, source) if service.persistence else source.packed)


def network_of(service: Service, client: IPAddress) -> bytes:
    """Return the network of *client* that shares one server, according to the service's persistence."""
    shift = client.max_prefixlen - service.persistence_prefix[client.version]
    return (int(client) >> shift << shift).to_bytes(len(client.packed), "big")
