"""Curve25519 keys and preshared keys, and their text form (RFC 7748; whitepaper section 5.4).

Keys are written as WireGuard's tools write them: 32 bytes in standard base64, 44 characters.  Any other text raises
ValueError, whose one sentence says what was found and never quotes the key; a caller that knows the file and the line
turns it into a ConfigError.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from overlay.errors import PacketError
from overlay.wire.messages import KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT_SIZE = 44  # 32 bytes in base64


def encode_key(key: bytes) -> str:
    """Return *key* (32 bytes) in base64."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Return the 32 bytes that *text* encodes in base64; surrounding white space is refused, too.

    Raises ValueError, which does not quote *text*.
    """
    if len(text) != _TEXT_SIZE:
        raise ValueError(
            f"a key has {_TEXT_SIZE} characters of base64, as `wg genkey` writes it; this has {len(text)}"
        )
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("a key is written in base64; this has other characters") from None
    # Two bits of the last character are unused; if they could be set, a key would have more than one spelling.
    if len(key) != KEY_SIZE or encode_key(key) != text:
        raise ValueError("a key is 32 bytes in base64; this does not decode to 32 bytes")
    return key


class PrivateKey:
    """A Curve25519 private key, clamped (RFC 7748 section 5).  Its repr shows only the public key."""

    __slots__ = ("_key", "_secret", "public")

    public: bytes
    """Its public key, 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes, clamped or not.  Raises ValueError for any other number."""
        self._secret = _clamp(secret)
        self._key = X25519PrivateKey.from_private_bytes(self._secret)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Self:
        """Make a new key."""
        return cls(entropy(KEY_SIZE))

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read a key as decode_key() does.  Raises ValueError."""
        return cls(decode_key(text))

    def to_base64(self) -> str:
        """Return the clamped key in base64, for a key file."""
        return encode_key(self._secret)

    def to_hex(self) -> str:
        """Return the clamped key in hexadecimal, as the interface for `wg` has it."""
        return self._secret.hex()

    def is_written_as(self, public_key: bytes) -> bool:
        """Return whether *public_key*, read as a private key, is this one: then a key is in the wrong place."""
        return len(public_key) == KEY_SIZE and hmac.compare_digest(self._secret, _clamp(public_key))

    def exchange(self, public_key: bytes) -> bytes:
        """Return the shared secret with the owner of *public_key* (X25519).

        Raises PacketError if it is all zero, which it is for each point of low order (RFC 7748 section 6.1), because
        then everybody knows it.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError:
            raise PacketError("low_order_point") from None

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same key, in constant time."""
        return isinstance(other, PrivateKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        """Hash the public key."""
        return hash(self.public)

    def __repr__(self) -> str:
        """Show whose key it is."""
        return f"PrivateKey(of {encode_key(self.public)})"


class PresharedKey:
    """A symmetric key that two peers share in addition to their key pairs.  Its repr does not show it."""

    __slots__ = ("secret",)

    secret: bytes
    """The 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes.  Raises ValueError for any other number."""
        if len(secret) != KEY_SIZE:
            raise ValueError(f"a preshared key has {KEY_SIZE} bytes, not {len(secret)}")
        self.secret = bytes(secret)

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Self:
        """Make a new key."""
        return cls(entropy(KEY_SIZE))

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read a key as decode_key() does.  Raises ValueError."""
        return cls(decode_key(text))

    def to_base64(self) -> str:
        """Return the key in base64, for a key file."""
        return encode_key(self.secret)

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same key, in constant time."""
        return isinstance(other, PresharedKey) and hmac.compare_digest(self.secret, other.secret)

    __hash__ = None  # type: ignore[assignment]  # a secret is not to be a key of a dictionary

    def __repr__(self) -> str:
        """Show that there is a key."""
        return "PresharedKey(hidden)"


def _clamp(secret: bytes) -> bytes:
    if len(secret) != KEY_SIZE:
        raise ValueError(f"a private key has {KEY_SIZE} bytes, not {len(secret)}")
    return bytes([secret[0] & 248]) + secret[1:31] + bytes([secret[31] & 127 | 64])
