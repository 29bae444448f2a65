"""The requested flows of services, a page at a time."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from overlay.answers.services import unknown
from overlay.link.service_messages import FlowFilter
from overlay.questions import refusal
from overlay.services.states import State
from peers.service import PROTOCOLS

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.balancing.balancing import Balancing
    from overlay.link.service_messages import FlowRow
    from overlay.questions import Answer, TellRows
    from peers.service import Server, Service

# Ours
PAGE = 500  # flows requested at once: 0.1 MB of memory, and a few milliseconds of the forwarder's time
LIMIT, MOST = 1000, 1_000_000  # flows: the default, and the most that a request may ask for
PAGES = 10_000  # of one service; a forwarder that sends more is not trusted

STATES = [state.name for state in State if state is not State.NONE]
_NAMES = {number: name for name, number in PROTOCOLS.items()}


async def answer(running: Running, request: Answer, tell_rows: TellRows) -> Answer:
    """Send flows of all services that this node balances, or of the one called ``name``.

    ``client`` is a prefix, ``server`` a name; ``states``, ``protocol`` and ``port`` are those of flows; ``limit`` is
    the most to send.
    """
    balancing, name = running.balancing, request.get("name")
    names = list(running.services)
    if name is not None and name not in list(balancing.watching.healths):
        if name in names:
            return refusal(f"this node is not a director of {name}: ask one of its directors")
        return unknown(name, names, "service")
    services = [each.service for key, each in balancing.watching.healths.items() if name in {None, key}]
    try:
        wanted, limit = _filter(request), _whole(request, "limit", 1, MOST) or LIMIT
    except ValueError as error:
        return refusal(str(error))
    server_name = request.get("server")
    if server_name is not None:
        services = [each for each in services if _server(each, server_name) is not None]
        if not services:
            known = dict.fromkeys(
                server.name for each in balancing.watching.healths.values() for server in each.service.entries
            )
            return unknown(server_name, list(known), "server" if name is None else f"server of {name}")
    left = limit
    for service in services:
        server = None if server_name is None else _server(service, server_name)
        told = await _tell(balancing, service, server, wanted, left, tell_rows)
        if told is None:
            return {"ok": True, "is_complete": False, "has_more": False}
        left -= told
        if left < 0:
            break
    return {"ok": True, "is_complete": True, "has_more": left < 0}


async def _tell(
    balancing: Balancing,
    service: Service,
    server: Server | None,
    wanted: FlowFilter,
    most: int,
    tell_rows: TellRows,
) -> int | None:
    """Send at most *most* flows, and return how many there are, *most* + 1 for any number above.

    The result is None if the forwarder does not answer.
    """
    numbers = balancing.numbers
    number = numbers.service(service.name)
    names = {numbers.server(service.name, each.key): each.name for each in service.entries}
    if server is not None:
        wanted = FlowFilter(
            wanted.client,
            wanted.prefix,
            numbers.server(service.name, server.key),
            wanted.protocol,
            wanted.port,
            wanted.states,
        )
    told, at = 0, 0
    for _ in range(PAGES):
        page = await balancing.flow_pages.ask(number, wanted, at, min(PAGE, most + 1 - told))
        if page is None:
            return None
        await tell_rows([_row(service, row, names) for row in page.rows[: most - told]])
        told += len(page.rows)
        if page.rest is None or told > most:
            return told
        at = page.rest
    return None


def _row(service: Service, row: FlowRow, names: dict[int, str]) -> dict[str, Any]:
    return {
        "service": service.name,
        "protocol": _NAMES.get(row.protocol, str(row.protocol)),
        "client": str(ip_address(row.client)),
        "client_port": row.client_port,
        "address": str(ip_address(row.address)),
        "port": row.port,
        "state": State(row.state).name if row.state in set(State) else str(row.state),
        "server": None if row.server is None else names.get(row.server),
        "idle_s": round(row.idle, 3),
        "left_s": round(row.left, 3),
    }


def _server(service: Service, name: object) -> Server | None:
    return next((each for each in service.entries if each.name == name), None)


def _filter(request: Answer) -> FlowFilter:
    """Return which flows *request* is about.  Raises ValueError with a sentence."""
    client = request.get("client")
    network = None
    if client is not None:
        try:
            network = ip_network(str(client), strict=False)
        except ValueError:
            raise ValueError(f"{client!r} is not an IP address or prefix") from None
    states = request.get("states") or []
    if not isinstance(states, list) or any(each not in STATES for each in states):
        raise ValueError(f"the states of flows are {', '.join(STATES)}")
    protocol = request.get("protocol")
    if protocol is not None and protocol not in list(PROTOCOLS):
        raise ValueError(f"the protocols of services are {', '.join(PROTOCOLS)}")
    return FlowFilter(
        None if network is None else network.network_address.packed,
        0 if network is None else network.prefixlen,
        None,
        None if protocol is None else PROTOCOLS[protocol],
        _whole(request, "port", 0, 65_535),
        [int(State[each]) for each in states],
    )


def _whole(request: Answer, key: str, least: int, most: int) -> int | None:
    value = request.get(key)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise ValueError(f"{key} must be a number from {least} to {most}")
    return value
