"""Answers that this node has asked for.

Their cost was accepted when the node called, so they do not count as load caused by strangers.
"""

from __future__ import annotations

import struct

from overlay.wire.messages import INITIATION, TYPE_COOKIE_REPLY, TYPE_INITIATION, TYPE_RESPONSE, message_type

# Specification (whitepaper section 5.4): where the index of the initiation is
_SENDER_AT = 4  # in the initiation
_RECEIVER_AT = {TYPE_RESPONSE: 8, TYPE_COOKIE_REPLY: 4}
_INDEX = struct.Struct("<I")

# Ours
AWAITED_TIME = 10.0  # seconds; after five the initiation is sent again, with another index
AWAITED = (
    16_384  # initiations remembered, the oldest forgotten first; the agent begins some hundred in a second
)


class Awaited:
    """The recently sent initiations.  A 32-bit index cannot be guessed among so few."""

    def __init__(self) -> None:
        # By index, the oldest first: when it was sent, and the kinds of answers that may come
        self._sent: dict[int, tuple[float, frozenset[int]]] = {}

    def sent(self, datagram: bytes, now: float) -> None:
        """Note a handshake message that leaves this node; only an initiation expects an answer."""
        if len(datagram) != INITIATION.size or message_type(datagram) != TYPE_INITIATION:
            return
        while self._sent:
            oldest = next(iter(self._sent))
            if len(self._sent) < AWAITED and now - self._sent[oldest][0] < AWAITED_TIME:
                break
            del self._sent[oldest]
        (index,) = _INDEX.unpack_from(datagram, _SENDER_AT)
        self._sent[index] = now, frozenset(_RECEIVER_AT)

    def take(self, kind: int, datagram: bytes, now: float) -> bool:
        """Return whether *datagram*, of the size of its *kind*, answers an initiation, as the first of its kind."""
        if kind not in _RECEIVER_AT:
            return False
        (index,) = _INDEX.unpack_from(datagram, _RECEIVER_AT[kind])
        sent_at, kinds = self._sent.get(index, (now, frozenset[int]()))
        if kind not in kinds or now - sent_at >= AWAITED_TIME:
            return False
        self._sent[index] = sent_at, kinds - {kind}
        return True
