"""What a capture has to know of this node: whose packets pass its interface, and where its datagrams come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overlay.answers.peer import find_peer, refuse_peer
from overlay.reasons import REASONS

if TYPE_CHECKING:
    from overlay.answers.running import Running
    from overlay.questions import Answer, TellRows
    from overlay.roster import Remote

# Ours
SCHEMA = 1
ROWS_AT_ONCE = 100


async def answer(running: Running, request: Answer, tell_rows: TellRows) -> Answer:
    """Tell the rows of all peers, and return what is to be known of this node.

    With a ``name`` it is a peer that is asked for; its own name comes back.
    """
    asked, node = request.get("name"), running.node()
    remote = find_peer(asked, running.roster) if asked is not None else None
    if asked is not None and remote is None:
        return refuse_peer(asked, running.roster, node, running.options.peers)
    remotes = list(running.roster.by_number.values())
    for at in range(0, len(remotes), ROWS_AT_ONCE):
        await tell_rows([_row(each) for each in remotes[at : at + ROWS_AT_ONCE]])
    described = {
        "schema": SCHEMA,
        "node": node.own.name,
        "interface": running.host.interface,
        "is_tap": node.is_tap,
        "ports": sorted({each.port for each in running.host.underlay if each.has_port}),
        "protocols": sorted({each.protocol for each in running.host.underlay if not each.has_port}),
        "peer": None if remote is None else remote.peer.name,
        "reasons": list(REASONS),
    }
    return {"ok": True, "capture": described}


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
