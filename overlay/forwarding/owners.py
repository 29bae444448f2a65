"""Whom each address belongs to: the table that packets are forwarded by, and what else is asked of it."""

from __future__ import annotations

from overlay.forwarding.peer import LivePeer
from overlay.forwarding.table import RouteTable
from overlay.link.messages import OWN


class Owners(RouteTable[LivePeer]):
    """The table of the peers and of this node; addresses have 4 or 16 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.own = LivePeer(OWN)
        """This node, as the owner of what is behind it."""

    def number_of(self, address: bytes) -> int | None:
        """Return the number of the owner of *address*, which may be OWN; None if nobody owns it."""
        owner = self._owner(address)
        return None if owner is None or owner.number < OWN else owner.number

    def peer_of(self, address: bytes) -> LivePeer | None:
        """Return the peer that owns *address*; None if no peer owns it, or this node does."""
        owner = self._owner(address)
        return None if owner is None or owner.number <= OWN else owner

    def is_own(self, address: bytes) -> bool:
        """Return whether *address* is one of this node or of what is behind it."""
        return self.find(address) is self.own

    def has_source(self, peer: LivePeer, source: bytes) -> bool:
        """Return whether *peer*, in the clear, may send from the address *source* although it is not its own.

        The longest prefix decides, as for destinations: an address that another peer has by a longer prefix is
        excluded.
        """
        length = peer.unsealed.sources.length(source) if peer.unsealed.sources is not None else -1
        return length >= 0 and length >= self.length(source)

    def _owner(self, address: bytes) -> LivePeer | None:
        remembered = self.remembered
        return remembered[address] if address in remembered else self.find(address)
