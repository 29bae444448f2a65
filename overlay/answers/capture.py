"""What a capture must know about this node: whose packets pass its interface, and where its datagrams come from."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from overlay.answers.peer import find_peer, refuse_peer
from overlay.questions import refusal
from overlay.reasons import REASONS
from overlay.supervision.captures import MOST_CAPTURES, is_fit

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, Request, TellRows
    from overlay.roster import Remote
    from peers.service import Service

# Ours
SCHEMA = 1
LARGEST_SNAPLEN = 262_144  # tcpdump's
ROWS_AT_ONCE = 100


async def answer(running: Running, request: Request, tell_rows: TellRows) -> Answer:
    """Send the rows of all peers and services, and return what a capture must know about this node.

    No rows are sent if the table in force is the one with the number ``table``, which the requester already has.
    ``name`` asks for one peer, whose own name is returned.  If a socket comes with the request, dropped packets are
    reported on it, the first ``snaplen`` bytes of each, until its other end is closed.
    """
    asked, node = request.get("name"), running.node()
    remote = find_peer(asked, running.roster) if asked is not None else None
    if asked is not None and remote is None:
        return refuse_peer(asked, running)
    if request.descriptors and (refused := await _begin(running, request)) is not None:
        return refused
    table = running.roster.changes
    if request.get("table") != table:
        node_in_force = running.roster.node
        services = [] if node_in_force is None else list(node_in_force.table.services.values())
        remotes = list(running.roster.by_number.values())
        for at in range(0, len(remotes), ROWS_AT_ONCE):
            await tell_rows([_row(each) for each in remotes[at : at + ROWS_AT_ONCE]])
        for at in range(0, len(services), ROWS_AT_ONCE):
            await tell_rows([_service_row(each) for each in services[at : at + ROWS_AT_ONCE]])
    described = {
        "schema": SCHEMA,
        "table": table,
        "node": node.own.name,
        "interface": running.host.interface,
        "is_tap": node.is_tap,
        "ports": sorted({each.port for each in running.host.underlay if each.has_port}),
        "protocols": sorted({each.protocol for each in running.host.underlay if not each.has_port}),
        "peer": None if remote is None else remote.peer.name,
        "reasons": list(REASONS),
    }
    return {"ok": True, "capture": described}


async def _begin(running: Running, request: Request) -> Answer | None:
    """Make the forwarder report dropped packets; return a refusal if it cannot."""
    snaplen = request.get("snaplen")
    if not isinstance(snaplen, int) or not 0 < snaplen <= LARGEST_SNAPLEN:
        return refusal(f"a capture needs a snaplen of 1 to {LARGEST_SNAPLEN} bytes")
    try:
        opened = socket.socket(fileno=os.dup(request.descriptors[0]))
    except OSError:
        return refusal("the descriptor that came with the request is not a socket")
    if not is_fit(opened):
        opened.close()
        return refusal(
            "the descriptor that came with the request is not a unix socket of type SOCK_SEQPACKET"
        )
    if not await running.supervisor.captures.begin(opened, snaplen):
        return refusal(f"{MOST_CAPTURES} captures are running already: end one of them", "busy")
    return None


def _service_row(service: Service) -> dict[str, Any]:
    return {"service": service.name, "addresses": [str(each) for each in service.addresses]}


def _row(remote: Remote) -> dict[str, Any]:
    endpoint = remote.heard_at or remote.endpoint
    peer = remote.peer
    own = (f"{address}/{address.max_prefixlen}" for address in peer.addresses)
    return {
        "number": remote.number,
        "name": peer.name,
        "prefixes": [*map(str, peer.subnets), *own],
        "endpoint": None if endpoint is None else list(endpoint[:2]),
    }
