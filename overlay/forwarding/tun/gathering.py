"""Receives of merged datagrams that are taken as one: a super-packet takes two sends, and enters the tun in one write.

In the clear the last packet tells whether another goes on with it.  What messages carry is not known before they are
opened: those of a session are gathered as long as there is room, for the next receive is asked for in any case.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.forwarding.offload.flow import OVERHEAD
from overlay.forwarding.offload.flow import may_go_on as is_followed
from overlay.wire.messages import TYPE_TRANSPORT

if TYPE_CHECKING:
    from collections.abc import Container

# Ours
GATHERED_BYTES = 65535 + 64 * 60  # a super-packet and its segments' headers
GATHERED_ROWS = 64  # of messages, as in one receive: views are remembered for each number of rows
_ADDRESSED = struct.Struct("<II")  # type and receiver index, before the counter


def may_go_on(
    view: memoryview, gathered: int, stride: int, sessions: Container[int], *, is_clear: bool
) -> bool:
    """Return whether what is *gathered* at the start of *view*, merged rows of *stride* bytes except for the last, is
    to wait for another receive; *sessions* are the receiver indices of messages that are.
    """
    if gathered % stride:
        return False
    if is_clear:
        return is_followed(view[gathered - stride : gathered])
    if stride < OVERHEAD or gathered > _most(stride) - stride:
        return False
    kind, index = _ADDRESSED.unpack_from(view)
    return kind == TYPE_TRANSPORT and index in sessions


def room_behind(view: memoryview, gathered: int, stride: int, *, is_clear: bool) -> int:
    """Return how many bytes of merged rows that stand behind what is *gathered* may go on with it: 0 for messages of
    another session.
    """
    if is_clear:
        return GATHERED_BYTES - gathered
    is_same = view[gathered : gathered + _ADDRESSED.size] == view[: _ADDRESSED.size]
    return _most(stride) - gathered if is_same else 0


def _most(stride: int) -> int:
    """Return how many bytes of messages are gathered at most."""
    return min(GATHERED_BYTES, GATHERED_ROWS * stride)
