"""Datagrams of one receive that belong to no session of this node: recognized by their first words, all at once.

A stranger may send as many of them as a peer sends packets, and the kernel merges them in the same way, so they must
not cost more than packets do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.forwarding.offload.flow import OVERHEAD
from overlay.wire.bulk import FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT
from overlay.wire.messages import TYPE_COOKIE_REPLY, TYPE_INITIATION, TYPE_TRANSPORT

if TYPE_CHECKING:
    from collections.abc import Container

    from overlay.forwarding.offload.flow import Bytes2D

LEAST_ROW = 8  # bytes: the type, and the index of a session


def sort_out(
    rows: Bytes2D, known: Container[int], *, takes_units: bool
) -> tuple[dict[str, list[int]], list[int]]:
    """Return which of *rows* are refused, by reason, and which of them may be ours, in their order.

    *rows* are datagrams of equal size, LEAST_ROW bytes at least; *known* are the indices of sessions.  Nothing is
    authenticated or changed.
    """
    words = rows[:, :LEAST_ROW].view("<u4")
    kinds, indices = words[:, 0].tolist(), words[:, 1].tolist()
    size = rows.shape[1]
    refused: dict[str, list[int]] = {}
    ours: list[int] = []
    for row, (kind, index) in enumerate(zip(kinds, indices, strict=True)):
        if kind == TYPE_TRANSPORT:
            reason = "" if index in known else "unknown_index"
            if size < OVERHEAD:
                reason = "transport_short"
        elif TYPE_INITIATION <= kind <= TYPE_COOKIE_REPLY:
            reason = ""
        elif takes_units and kind & 0xFF == TYPE_FRAGMENT:
            reason = "" if index in known else "unknown_index"
            if size <= FRAGMENT_HEADER_SIZE:
                reason = "fragment_short"
        else:
            reason = "unknown_type"
        if reason:
            refused.setdefault(reason, []).append(row)
        else:
            ours.append(row)
    return refused, ours
