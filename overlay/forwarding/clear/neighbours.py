"""Answers to questions from the far end of a tunnel of Ethernet frames for an address of this node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.forwarding.ratelimit import TokenBuckets
from overlay.wire.ethernet import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overlay.encap.encapsulation import Frames
    from overlay.forwarding.peer import LivePeer
    from overlay.forwarding.upcalls import Upcalls
    from overlay.wire.ip import Buffer
    from overlay.wire.neighbours import Question

# Ours
ANSWERS_PER_SECOND = (
    100.0  # to one peer: a kernel asks again every 30 seconds or so, for each address it talks to
)
ANSWERS_BURST = 200.0


class Neighbours:
    """Answers for this node's own addresses and subnets, and for nothing else, to the peer that asks."""

    def __init__(self, core: Upcalls) -> None:
        self._core = core
        self._buckets = TokenBuckets(ANSWERS_PER_SECOND, ANSWERS_BURST)

    def answer(self, frames: Frames, peers: Iterable[LivePeer], payload: Buffer, now: float) -> bool:
        """Answer the question in *payload*, of one of *peers*; return False if there is none for this node,
        or too many.

        A link-local source does not identify a peer: the answer goes where the peer is.
        """
        found = frames.question(payload)
        if found is None:
            return False
        identifier, question = found
        for peer in peers:
            if peer.tunnel.ends.identifier == identifier and self._may_ask(peer, question):
                break
        else:
            return False
        is_own = self._core.table.is_own(question.target)
        if not is_own or not self._buckets.allow(peer.number.to_bytes(8, "big"), now):
            return False
        self._core.sender.send_message(peer, frames.answer(question, peer.tunnel.ends))
        return True

    def _may_ask(self, peer: LivePeer, question: Question) -> bool:
        is_for_us = question.asked == peer.tunnel.ends.own_mac or question.asked[0] & GROUP
        is_linked = len(question.source) == 16 and question.source[:2] == b"\xfe\x80"
        return bool(is_for_us) and (is_linked or self._core.table.peer_of(question.source) is peer)
