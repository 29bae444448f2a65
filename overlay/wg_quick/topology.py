"""How one peers file for all hosts changes who sends what where, compared with a file for each host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.prefixes import PrefixMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.importing.places import Remarks
    from overlay.wg_quick.node import Node
    from peers.table import Table

# Ours
NAMED = 5


def compare(nodes: Sequence[Node], table: Table, remarks: Remarks) -> None:
    """Add remarks where hosts with files would send packets differently than according to their files."""
    if sum(node.host is not None for node in nodes) < 2:
        return  # one file is one host's view, and the peers file is for that host
    for viewer in nodes:
        if viewer.host is None:
            continue
        seen = {node.name: other for node in nodes for by, other in node.sightings if by is viewer}
        strangers = [node.name for node in nodes if node is not viewer and node.name not in seen]
        if strangers:
            _remark_on_strangers(viewer, strangers, table, remarks)
        for name, other in seen.items():
            allowed = PrefixMap((prefix, True) for prefix in other.allowed)
            more = [
                str(subnet)
                for subnet in table.peers[name].subnets
                if next(allowed.covering(subnet), None) is None
            ]
            if more:
                remarks.add(
                    other.place,
                    f"AllowedIPs of {name}",
                    f"other files have {_some(more)}, too, and what is behind a peer is the same for all hosts in a "
                    f"peers file: {viewer.name} will send that to {name}",
                )


def _remark_on_strangers(viewer: Node, strangers: Sequence[str], table: Table, remarks: Remarks) -> None:
    """Add remarks on hosts that become new peers of *viewer*, and on those that it can no longer reach."""
    own = table.peers[viewer.name]
    silent = [name for name in strangers if own.endpoint is None and table.peers[name].endpoint is None]
    if silent:
        remarks.add(
            viewer.place,
            "[Interface]",
            f"this file leads to {_some(silent)} through another peer, if at all; in a peers file hosts send to each "
            f"other directly, which needs the endpoint of one: give {viewer.name} or them an endpoint, or import this "
            "file alone for a peers file of this host",
        )
    reachable = [name for name in strangers if name not in silent]
    if reachable:
        remarks.add(
            viewer.place,
            "[Interface]",
            f"this file has no [Peer] for {_some(reachable)}; in a peers file every host is a peer of every other",
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
