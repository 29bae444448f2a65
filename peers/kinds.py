"""The kinds of sections that a peers file may have in addition to [network]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peers.peer_section import PEERS
from peers.services.sections import CHECKS, SERVICES, VRRPS

if TYPE_CHECKING:
    from peers.kind import Kind

KINDS: tuple[Kind[Any], ...] = (PEERS, SERVICES, CHECKS, VRRPS)
"""All of them, in the order in which they are read and checked."""
