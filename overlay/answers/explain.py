"""Where one packet would go, and why."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import trio

from overlay import explaining
from overlay.answers.peer import asked_address
from overlay.errors import HostError
from overlay.explaining import choosing, stations
from overlay.explaining.facts import Facts
from overlay.explaining.flow import Flow
from overlay.explaining.station import StationSighting
from overlay.host import clock, sysctl
from overlay.host.link_state import bridge_of
from overlay.host.netlink.route_lookup import RouteLookup, RouteQuery
from overlay.link.messages import OWN
from overlay.link.service_messages import FlowFilter
from overlay.questions import refusal
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, MAXIMUM_IP
from peers.mac import GroupAddressError, parse_mac
from peers.service import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.answers.running import Running
    from overlay.explaining.choosing import Choice
    from overlay.explaining.explanation import Explanation
    from overlay.host.firewall.rules import Firewall
    from overlay.host.netlink.route_lookup import RouteResult
    from overlay.host.plan import IPAddress
    from overlay.link.messages import Station
    from overlay.questions import Answer, TellRows
    from overlay.roster import Remote
    from overlay.supervision.counters import Counted
    from peers.service import Service

# Ours
LINE = trio.CapacityLimiter(1)  # packet filters are read, and servers chosen, one after the other
KNOWN_FLOWS = 64  # of one client, among which its server is looked for


class UnknownNameError(Exception):
    """A text that is neither an address nor the name of a peer or service."""


async def answer(running: Running, request: Answer, _tell_rows: TellRows) -> Answer:
    """Explain a packet to ``name`` from ``source``: addresses, or names of peers and services.

    Without a source it is one that this host sends.  ``protocol``, ``port``, ``source_port`` and ``size``, in bytes,
    may be given.
    """
    try:
        mac = _mac(request.get("name"))
    except GroupAddressError as error:
        return refusal(f"{request['name']} {error}: frames to a group are copied to every peer", "own")
    if mac is not None:
        return await _explain_frame(running, request, mac)
    try:
        flow = _flow(running, request)
    except UnknownNameError as error:
        asked = str(error)
        text = (
            f"{asked or 'empty text'} is neither an address nor a peer or service in {running.options.peers}"
        )
        known = [running.node().own.name, *running.roster.by_name, *running.services]
        return {"ok": False, "kind": "unknown_peer", "error": text, "asked": asked, "known": known}
    except ValueError as error:
        return refusal(str(error), "own")
    counted = await running.count()
    firewall = await trio.to_thread.run_sync(running.host.read_firewall, limiter=LINE)
    try:
        with contextlib.closing(RouteLookup()) as ways:
            source = flow.source or ways.of(RouteQuery(flow.destination)).source
            chosen = await _choose(running, flow, source)
            facts = _facts(running, ways, counted, firewall, chosen)
            if running.node().is_tap:
                facts = replace(
                    facts,
                    station=await _next_station(running, ways, flow),
                    source_station=await _station(running, flow.source),
                )
            found = explaining.explain(facts, flow)
    except HostError as error:
        return refusal(str(error))
    return {"ok": True, "explanation": describe(found)}


def _mac(asked: object) -> bytes | None:
    """Return the Ethernet address that *asked* is; None if it is not one.  Raises GroupAddressError."""
    try:
        return parse_mac(asked) if isinstance(asked, str) else None
    except GroupAddressError:
        raise
    except ValueError:
        return None


async def _explain_frame(running: Running, request: Answer, mac: bytes) -> Answer:
    """Explain a frame to the Ethernet address *mac*."""
    given = ("source", "protocol", "port", "source_port", "size")
    if any(request.get(each) is not None for each in given):
        return refusal(
            "a frame is explained by its destination alone: give the Ethernet address and nothing else", "own"
        )
    if not running.node().is_tap:
        interface = running.host.interface
        text = f"{interface} is a tun, which carries packets without Ethernet addresses: give an IP address"
        return refusal(text, "own")
    counted = await running.count()
    station = _sighted(running, await running.supervisor.locate(mac=mac))
    with contextlib.closing(RouteLookup()) as ways:
        try:
            facts = replace(_facts(running, ways, counted, None, {}), station=station)
            found = stations.explain_frame(facts, mac)
        except HostError as error:
            return refusal(str(error))
    return {"ok": True, "explanation": describe(found)}


async def _next_station(running: Running, ways: RouteLookup, flow: Flow) -> StationSighting | None:
    """Return the station that a packet of *flow* goes to through the tap: its destination, or the router to it."""
    way, interface = ways.of(RouteQuery(flow.destination)), running.host.interface
    is_by_tap = way.interface in {interface, bridge_of(interface)}
    target = way.gateway if is_by_tap and way.gateway is not None else flow.destination
    return await _station(running, target)


async def _station(running: Running, address: IPAddress | None) -> StationSighting | None:
    """Return the station that has *address*; None for no address."""
    if address is None:
        return None
    return _sighted(running, await running.supervisor.locate(address=address.packed))


def _sighted(running: Running, told: Station | None) -> StationSighting | None:
    """Return the forwarder's report on a station, with the name of the peer."""
    if told is None:
        return None
    remote = None if told.peer is None else running.roster.by_number.get(told.peer)
    is_here = told.peer == OWN
    age = told.age if is_here or remote is not None else None
    return StationSighting(told.mac, None if remote is None else remote.peer.name, is_here, age)


def _flow(running: Running, request: Answer) -> Flow:
    """Return the flow in *request*.  Raises UnknownNameError, and ValueError with a sentence."""
    protocol = request.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        raise ValueError(f"{protocol!r:.40} is not a protocol of services: write {', '.join(PROTOCOLS)}")
    ports = []
    for key in ("port", "source_port"):
        value = request.get(key)
        if value is not None and (type(value) is not int or not 0 < value < 1 << 16):
            raise ValueError(f"{value!r:.40} is not a {key}: write a number from 1 to 65535")
        ports.append(value)
    destinations = _addresses(running, request.get("name"))
    source = None
    if request.get("source") is not None:
        sources = _addresses(running, request["source"])
        both = [(to, each) for to in destinations for each in sources if to.version == each.version]
        if not both:
            raise ValueError(
                f"{_told(request['name'], destinations[0])} and {_told(request['source'], sources[0])} are not of"
                " the same family: name two IPv4 addresses, or two IPv6 addresses"
            )
        (destination, source) = both[0]
    else:
        destination = destinations[0]
    port, source_port = ports
    return Flow(destination, source, protocol, port, source_port, _size(request, destination.version))


def _size(request: Answer, version: int) -> int | None:
    """Return the size of the packet in *request*, None if it has none.  Raises ValueError with a sentence."""
    size, least = request.get("size"), IPV4_HEADER_SIZE if version == 4 else IPV6_HEADER_SIZE
    if size is not None and (type(size) is not int or not least <= size <= MAXIMUM_IP):
        raise ValueError(
            f"{size!r:.40} is not the size of an IPv{version} packet, header included: write a number of bytes from "
            f"{least} to {MAXIMUM_IP}"
        )
    return size


def _addresses(running: Running, asked: object) -> list[IPAddress]:
    """Return the address that *asked* is, or those of the peer or service of that name."""
    address, table = asked_address(asked), running.node().table
    if address is not None:
        return [address]
    name = str(asked)
    if (peer := table.peers.get(name)) is not None:
        first = [each.network_address + (each.num_addresses > 1) for each in peer.subnets]
        found = [*peer.addresses, *first]
        if not found:
            raise ValueError(f"{name} has no address on the overlay: write an address in place of its name")
        return found
    if (service := running.services.get(name)) is not None:
        return list(service.addresses)
    if _is_link_local(name):
        raise ValueError(
            f"{name} is link-local, and the overlay does not carry it: write an address without a zone"
        )
    raise UnknownNameError(name)


def _is_link_local(text: str) -> bool:
    """Return whether *text* is an address with a zone (RFC 4007 section 11)."""
    try:
        return "%" in text and ip_address(text).is_link_local
    except ValueError:
        return False


def _told(asked: object, address: IPAddress) -> str:
    """Return *address* as the request wrote it, preceded by the name if it was given as a name."""
    return str(address) if asked_address(asked) is not None else f"{asked} ({address})"


def _facts(
    running: Running,
    ways: RouteLookup,
    counted: Counted,
    firewall: Firewall | None,
    chosen: Mapping[str, Choice],
) -> Facts:
    learnt, plan = running.host.learnt_mtus(), running.host.plan
    assert plan is not None

    def row(remote: Remote) -> dict[str, Any]:
        return running.row(remote, counted.peers.get(remote.number), clock.now(), learnt)

    return Facts(
        running.node(),
        running.roster,
        running.host.interface,
        plan,
        ways.of,
        row,
        sysctl.forwards,
        running.balancing.active,
        chosen,
        firewall,
        bridge=bridge_of(running.host.interface),
    )


async def _choose(running: Running, flow: Flow, source: IPAddress | None) -> dict[str, Choice]:
    """Return the servers for *flow* of the services that this node balances."""
    chosen: dict[str, Choice] = {}
    for service in list(running.services.values()):
        health = running.balancing.watching.healths.get(service.name)
        if health is None or flow.destination not in service.addresses:
            continue
        known = None if source is None else await _known_server(running, service, flow, source)
        pick = partial(choosing.choose, health, flow, source, known)
        chosen[service.name] = await trio.to_thread.run_sync(pick, limiter=LINE)
    return chosen


async def _known_server(running: Running, service: Service, flow: Flow, source: IPAddress) -> str | None:
    """Return the name of the server that *flow*, or with persistence its client, is bound to."""
    if not service.persistence and flow.source_port is None:
        return None
    numbers = running.balancing.numbers
    prefix = service.persistence_prefix[source.version] if service.persistence else source.max_prefixlen
    wanted = FlowFilter(
        choosing.network_of(service, source) if service.persistence else source.packed,
        prefix,
        protocol=None if flow.protocol is None else PROTOCOLS[flow.protocol],
        port=flow.port,
    )
    page = await running.balancing.flow_pages.ask(numbers.service(service.name), wanted, 0, KNOWN_FLOWS)
    names = {numbers.server(service.name, each.key): each.name for each in service.entries}
    for row in () if page is None else page.rows:
        if row.server is not None and (service.persistence or row.client_port == flow.source_port):
            return names.get(row.server)
    return None


def describe(found: Explanation) -> dict[str, Any]:
    """Return *found* as values for JSON."""
    refusal = found.refusal
    return {
        "destination": str(found.destination),
        "source": None if found.source is None else str(found.source),
        "origin": found.origin.value,
        "enters": found.enters,
        "goes": found.goes,
        "path": found.path.value,
        "refused_by": None if refusal is None else refusal.by,
        "reason": None if refusal is None else refusal.reason,
        "sender": found.sender,
        "peer": found.peer,
        "prefix": found.prefix,
        "tunnel": found.tunnel,
        "service": found.service,
        "station": found.station,
        "mtu_bytes": found.mtu,
        "size": found.fit,
        "route": _way(found.route),
        "reverse_route": _way(found.reverse_route),
        "underlay_route": _way(found.underlay_route),
        "steps": [{"step": each.name, "text": each.text} for each in found.steps],
        "doubts": found.doubts,
    }


def _way(way: RouteResult | None) -> dict[str, Any] | None:
    if way is None:
        return None
    return {
        "outcome": way.outcome.value,
        "interface": way.interface,
        "prefix": None if way.network is None else str(way.network),
        "table": way.table,
        "metric": way.metric,
        "gateway": None if way.gateway is None else str(way.gateway),
        "source": None if way.source is None else str(way.source),
        "mtu_bytes": way.mtu,
    }
