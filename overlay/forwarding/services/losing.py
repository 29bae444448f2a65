"""Flows of one IP version that their server loses: it fails by that version, and keeps those of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.forwarding.services.flows import FlowTable

_LONGEST_V4 = 13  # bytes of a key (overlay.wire.flow_key)


def give_to(flows: FlowTable, index: int, version: int, nobody: int) -> Iterator[None]:
    """Move the flows of an IP *version* from the server of *index* to *nobody*, the index of a server that is gone;
    a shard at a time.

    They end with their next packet, as those of a server that is gone do.
    """
    for shard in list(flows.shards):
        rows = np.flatnonzero(np.frombuffer(shard.server, np.uint16)[: len(shard.keys)] == index)
        for row in rows.tolist():
            key = shard.keys[row]
            if key and (len(key) <= _LONGEST_V4) is (version == 4):
                flows.move(shard, row, nobody)
        if len(rows):
            yield
