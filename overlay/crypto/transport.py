"""One keypair's transport messages, sealed and opened one by one (whitepaper sections 5.4.6 and 6.1).

The agent's packet path has its own, faster implementation (overlay.forwarding.keypair); this one is for programs with
little traffic, and the two never share a keypair.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.crypto.replay import REJECT_AFTER_MESSAGES, ReplayWindow
from overlay.errors import PacketError
from overlay.wire.messages import PADDING, TAG_SIZE, TRANSPORT_HEADER, TYPE_TRANSPORT


class TransportKeys:
    """The two transport keys of a handshake, with the send counter and the replay window.  Its repr does not show the
    keys.
    """

    __slots__ = ("_counter", "_receive", "_remote_index", "_send", "_window")

    def __init__(self, remote_index: int, send_key: bytes, receive_key: bytes) -> None:
        self._send, self._receive = ChaCha20Poly1305(send_key), ChaCha20Poly1305(receive_key)
        self._remote_index = remote_index
        self._counter = 0
        self._window = ReplayWindow()

    @property
    def is_used_up(self) -> bool:
        """Return whether seal() has no counters left."""
        return self._counter >= REJECT_AFTER_MESSAGES

    def seal(self, payload: bytes) -> bytes:
        """Return the transport message with *payload*, padded with zeros to a multiple of 16 bytes."""
        assert not self.is_used_up, "a nonce would be used twice"
        header = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, self._remote_index, self._counter)
        nonce = _nonce(self._counter)
        self._counter += 1
        return header + self._send.encrypt(nonce, payload + bytes(-len(payload) % PADDING), None)

    def open(self, datagram: bytes) -> bytes:
        """Return the payload of a transport message, with its padding.

        Raises PacketError, with nothing changed, if it is too short, was not sealed by the peer, or is a replay.
        """
        if len(datagram) < TRANSPORT_HEADER.size + TAG_SIZE:
            raise PacketError("transport_short")
        _, _, counter = TRANSPORT_HEADER.unpack_from(datagram)
        if counter >= REJECT_AFTER_MESSAGES:
            raise PacketError("replay")
        try:
            payload = self._receive.decrypt(_nonce(counter), datagram[TRANSPORT_HEADER.size :], None)
        except InvalidTag:
            raise PacketError("transport_auth") from None
        if not self._window.accept(counter):
            raise PacketError("replay")
        return payload


def _nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")  # RFC 8439 section 2.8
