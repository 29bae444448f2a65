"""The two MACs of a handshake message, and cookies (whitepaper sections 5.3, 5.4.4 and 5.4.7).

mac1 proves that the sender knows the receiver's public key. mac2 proves that the sender owns its source address: its
key is a cookie that a receiver under load has sent to that address.
"""

from __future__ import annotations

import hmac
import math
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from overlay.crypto import blake2s, xchacha
from overlay.errors import PacketError
from overlay.wire.messages import COOKIE_NONCE_SIZE, MAC_SIZE, MACS_SIZE, NO_MAC, CookieReply

if TYPE_CHECKING:
    from collections.abc import Callable

    from overlay.crypto.blake2s import Buffer

# Specification (whitepaper sections 5.4.4 and 5.4.7)
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"
COOKIE_TIME = 120.0  # seconds; the life of a responder's secret, and of a cookie at its recipient

# Ours
_SECRET_SIZE = 32  # a full key of BLAKE2s


def mac1_key(public_key: bytes) -> bytes:
    """Return the key of every mac1 sent to the owner of *public_key*."""
    return blake2s.digest(LABEL_MAC1 + public_key)


def is_mac1_valid(key: bytes, datagram: Buffer) -> bool:
    """Return whether a handshake message, an initiation or a response, has the right mac1 under *key*."""
    expected = blake2s.mac(key, datagram[:-MACS_SIZE])
    return hmac.compare_digest(expected, datagram[-MACS_SIZE:-MAC_SIZE])


class CookieChecker:
    """The receiving side: decides which senders may cause computations. It knows only our public key.

    *source* is, in each method, the sender's address as bytes followed by its port in two bytes; *datagram* is an
    initiation or a response of the right size.
    """

    __slots__ = ("_cookie_key", "_entropy", "_mac1_key", "_secret", "_secret_until")

    def __init__(self, public_key: bytes, entropy: Callable[[int], bytes]) -> None:
        self._mac1_key = mac1_key(public_key)
        self._cookie_key = _cookie_key(public_key)
        self._entropy = entropy
        self._secret = b""
        self._secret_until = -math.inf

    def check_mac1(self, datagram: Buffer) -> bool:
        """Return whether the sender knows our public key."""
        return is_mac1_valid(self._mac1_key, datagram)

    def check_mac2(self, datagram: Buffer, source: bytes, now: float) -> bool:
        """Return whether the sender used a cookie that we sent to *source* and that has not expired."""
        if now >= self._secret_until:
            return False
        expected = blake2s.mac(self._cookie(source), datagram[:-MAC_SIZE])
        return hmac.compare_digest(expected, datagram[-MAC_SIZE:])

    def make_reply(self, datagram: Buffer, source: bytes, now: float) -> bytes:
        """Return the cookie reply that answers *datagram*, whose mac1 has been checked."""
        if now >= self._secret_until:
            self._secret = self._entropy(_SECRET_SIZE)
            self._secret_until = now + COOKIE_TIME
        nonce = self._entropy(COOKIE_NONCE_SIZE)
        mac1 = bytes(datagram[-MACS_SIZE:-MAC_SIZE])
        sealed = xchacha.seal(self._cookie_key, nonce, self._cookie(source), mac1)
        sender_index = int.from_bytes(datagram[4:8], "little")
        return CookieReply(sender_index, nonce, sealed).build()

    def _cookie(self, source: bytes) -> bytes:
        return blake2s.mac(self._secret, source)


class CookieHolder:
    """The sending side, towards one peer: adds both MACs to our messages, and keeps the cookie that we were given."""

    __slots__ = ("_cookie", "_cookie_key", "_cookie_until", "_mac1_key", "_sent_mac1")

    def __init__(self, peer_public_key: bytes) -> None:
        self._mac1_key = mac1_key(peer_public_key)
        self._cookie_key = _cookie_key(peer_public_key)
        self._sent_mac1: bytes | None = None
        self._cookie = b""
        self._cookie_until = -math.inf

    def add_macs(self, datagram: bytes, now: float) -> bytes:
        """Return the handshake message *datagram* with its last 32 bytes replaced by the MACs."""
        body = datagram[:-MACS_SIZE]
        self._sent_mac1 = blake2s.mac(self._mac1_key, body)
        body += self._sent_mac1
        if now >= self._cookie_until:
            return body + NO_MAC
        return body + blake2s.mac(self._cookie, body)

    def consume_reply(self, reply: CookieReply, now: float) -> None:
        """Keep the cookie of *reply* for COOKIE_TIME.

        Raises PacketError, with nothing changed, unless it answers the last message sent; a message is answered only
        once.
        """
        if self._sent_mac1 is None:
            raise PacketError("cookie_unexpected")
        try:
            cookie = xchacha.open_sealed(self._cookie_key, reply.nonce, reply.sealed_cookie, self._sent_mac1)
        except InvalidTag:
            raise PacketError("cookie_seal") from None
        self._cookie = cookie
        self._cookie_until = now + COOKIE_TIME
        self._sent_mac1 = None

    def wipe(self) -> None:
        """Forget the cookie."""
        self._cookie = b""
        self._cookie_until = -math.inf
        self._sent_mac1 = None


def _cookie_key(public_key: bytes) -> bytes:
    return blake2s.digest(LABEL_COOKIE + public_key)
