"""The status of the node and of all its peers."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from overlay import status
from overlay.balancing import standing
from overlay.encap import ENCAPSULATIONS
from overlay.encap.carrier import carried_by
from overlay.host import clock
from overlay.troubles import unkeyed
from overlay.troubles.absent import absent
from overlay.troubles.peers import notes_of, unreached
from peers.peer import format_public_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from overlay.answers.running import Running
    from overlay.host.netlink.path_mtu_exceptions import LearntMtu
    from overlay.questions import Answer, TellRows
    from overlay.supervision.counters import Counted
    from peers.peer import Peer

# Ours
ROWS_AT_ONCE = 20  # rows made before other tasks have their turn, in one millisecond


async def answer(running: Running, _request: Answer, tell_rows: TellRows) -> Answer:
    """Send the rows of all peers, a few at a time, and return the rest."""
    await running.host_notes.look_closely()  # the kernel does not report when settings change
    counted = await running.count()
    node, host, troubled = running.node(), running.host, list[dict[str, Any]]()
    others, learnt = list(node.others), host.learnt_mtus()
    for at in range(0, len(others), ROWS_AT_ONCE):
        rows = list(_rows(running, counted, others[at : at + ROWS_AT_ONCE], learnt))
        troubled += [row for row in rows if row["notes"]]
        await tell_rows(rows)
    drops = running.drops(counted)
    forwarder = running.supervisor.forwarder
    services = running.services.values()
    keyless, public_key = unkeyed.describe(node, running.options), node.own.public_key
    told = {
        "node": node.own.name,
        "interface": host.interface,
        "device": node.table.network.device,
        "public_key": None if public_key is None or keyless else format_public_key(public_key),
        "mtu": host.mtu,
        "mtu_reason": host.mtu_reason,
        "port": host.port,
        "addresses": [str(address) for address in node.own.addresses],
        "prefixes": [str(prefix) for prefix in node.table.network.prefixes],
        "pid": os.getpid(),
        "forwarder_pid": forwarder.pid,
        "packet_path": forwarder.packet_path,
        "lanes": forwarder.lanes,
        "lane_traffic": status.lane_traffic(counted.peers.values(), forwarder.lanes),
        "aes": forwarder.aes,
        "uptime": status.age(running.started, clock.now()),
        "peers_file": str(running.options.peers),
        "reload_error": running.reloads.refusal,
        "key_error": None if keyless is None else str(keyless),
        "store": status.store_standing(running.store),
        "is_complete": counted.is_complete,
        "services": standing.count_states(running.balancing, services),
        "containers": {
            "attached": running.containers.attached,
            "subnets": [str(subnet) for subnet in running.containers.offered],
        },
        "notes": _notes(running, counted, troubled),
        "drops": drops if counted.is_complete else None,
        "absent": asdict(absent(node)),
        "strangers": running.refusals.describe_strangers(clock.now()),
    }
    return {"ok": True, "status": told}


def _notes(running: Running, counted: Counted, troubled: Sequence[dict[str, Any]]) -> list[str]:
    """Return the notes on the node, and on the peers whose rows are *troubled*."""
    node, supervisor = running.node(), running.supervisor
    trouble = supervisor.trouble or status.describe_silence(supervisor.forwarder.pid, counted.patience)
    changed = None if node.merged is None or node.is_bare else node.merged.describe()
    return [
        *([] if counted.is_complete else [trouble]),
        *map(str, running.reloads.notes),
        *running.rotation_notes(),
        *running.notes,
        *running.host_notes.sentences,
        *([node.clear_note] if node.clear_note else []),
        *([] if changed is None else [changed]),
        *map(str, running.refusals.describe_misdirected(node, clock.now()).values()),
        *map(str, running.misplaced()),
        *notes_of(troubled),
        *standing.troubles_of(running.balancing, running.services.values()),
    ]


def _rows(
    running: Running, counted: Counted, peers: Sequence[Peer], learnt: Mapping[str, LearntMtu]
) -> Iterator[dict[str, Any]]:
    now = clock.now()
    for peer in peers:
        remote = running.roster.by_name.get(peer.name)
        if remote is None:
            continue
        counters = counted.peers.get(remote.number)
        row = running.row(remote, counters, now, learnt)
        if counters is None and not counted.is_complete:
            row = status.doubt(row)
        if (found := unreached(row, carried_by(ENCAPSULATIONS[row["encapsulation"]]))) is not None:
            row["notes"].append(str(found))
        yield row
