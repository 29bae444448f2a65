"""A node with the changes of `wg`: carries them from one node to the next, as a new peers file does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from overlay.resolver import literal
from overlay.uapi import amendments
from overlay.uapi.amended import NOTHING, Filed, Merged
from overlay.uapi.errors import INVALID, RefusedError
from peers.errors import KeyProblem
from peers.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.config import Node
    from overlay.roster import Remote, Roster
    from overlay.uapi.language import DeviceChange
    from overlay.wire.addresses import Sockaddr

# Ours
PEERS_AT_ONCE = 200  # examined before other tasks get a turn, in 2 ms


def merged_of(node: Node) -> Merged:
    """Return the values in force at *node*, even if `wg` has changed none."""
    return node.merged or amendments.merge(_filed(node), NOTHING)


def amend(node: Node, change: DeviceChange) -> Node:
    """Return *node* after *change*.  Raises RefusedError."""
    filed = _filed(node)
    try:
        merged = amendments.merge(filed, amendments.apply(filed, merged_of(node), change))
    except KeyProblem as problem:
        raise RefusedError(INVALID, f"the changes made by wg do not fit the peers table: {problem}") from None
    return _settled(node.as_filed, merged, is_down=node.is_down and not change.is_up)


def carry_over(node: Node, taken: Node) -> tuple[Node, str | None]:
    """Return *taken*, which was read from the files, with the changes that `wg` made to *node*, and a sentence for the
    log.

    The changes never cause the peers file to be refused: if they do not fit, all are dropped.
    """
    if node.merged is None or not node.merged.amendments:
        return taken, None
    try:
        merged = amendments.merge(_filed(taken), node.merged.amendments)
    except KeyProblem as problem:
        return (
            taken,
            f"the changes made by wg were dropped, because they do not fit the peers file: {problem}",
        )
    return _settled(taken, merged, is_down=node.is_down), None


def placed(change: DeviceChange, roster: Roster) -> Iterator[list[tuple[Remote, Sockaddr]]]:
    """Yield the peers whose configured endpoint *change* set again although they have left it, with that address.

    They come in pieces, between which other tasks should get a turn.
    """
    for at in range(0, len(change.peers), PEERS_AT_ONCE):
        found = []
        for each in change.peers[at : at + PEERS_AT_ONCE]:
            peer = None if roster.node is None else roster.node.table.find_by_public_key(each.public_key)
            remote = None if peer is None else roster.by_name.get(peer.name)
            if remote is not None and each.endpoint is not None and remote.configured == each.endpoint:
                places = literal(each.endpoint)[:1]
                found += [(remote, sockaddr) for sockaddr in places if sockaddr != remote.endpoint]
        yield found


def _filed(node: Node) -> Filed:
    filed = node.as_filed
    return Filed(filed.table, filed.own, filed.private_key, filed.preshared_keys)


def _settled(filed: Node, merged: Merged, *, is_down: bool) -> Node:
    """Return the node of *merged*, settled; while it *is_down* it sends no keepalives."""
    table = merged.table
    if is_down:
        peers = table.peers.items()
        quiet = {name: replace(peer, keepalive=0) if peer.keepalive else peer for name, peer in peers}
        if any(peer.keepalive for _, peer in peers):
            table = Table(table.network, quiet, table.sections)
    private_key = merged.private_key or filed.private_key  # without one, no peer uses it
    node = replace(
        filed,
        private_key=private_key,
        next_key=filed.next_key if private_key == filed.private_key else None,
        table=table,
        own=table.peers[merged.own.name],
        preshared_keys=dict(merged.preshared_keys),
        filed=filed,
        merged=merged,
        is_down=is_down,
    )
    node.settle()
    return node
