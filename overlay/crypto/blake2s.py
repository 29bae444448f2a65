"""The hash functions of WireGuard, all BLAKE2s (RFC 7693; whitepaper section 5.4).

``digest`` is the whitepaper's HASH, ``mac`` its MAC, ``kdf1`` to ``kdf3`` its KDF: HKDF (RFC 5869) over
HMAC-BLAKE2s with an empty info.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from overlay.wire.messages import MAC_SIZE

Buffer: TypeAlias = bytes | bytearray | memoryview

# Specification
_BLOCK_SIZE = 64

_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # RFC 2104


def digest(data: Buffer) -> bytes:
    """Return the 32 bytes of BLAKE2s over *data*."""
    return hashlib.blake2s(data).digest()


def mac(key: bytes, data: Buffer) -> bytes:
    """Return the 16 bytes of keyed BLAKE2s over *data*; *key* has at most 32 bytes."""
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def hmac_digest(key: bytes | bytearray, data: bytes | bytearray) -> bytes:
    """Return the 32 bytes of HMAC-BLAKE2s (RFC 2104) over *data*.

    A handshake computes 27 of them; the module hmac takes twice as long for each.
    """
    padded = (key if len(key) <= _BLOCK_SIZE else digest(key)).ljust(_BLOCK_SIZE, b"\0")
    inner = digest(padded.translate(_INNER_PAD) + data)
    return digest(padded.translate(_OUTER_PAD) + inner)


def kdf1(key: bytes | bytearray, data: bytes | bytearray) -> bytes:
    """Derive one key of 32 bytes from the chaining key *key* and *data*."""
    return hmac_digest(hmac_digest(key, data), b"\x01")


def kdf2(key: bytes | bytearray, data: bytes | bytearray) -> tuple[bytes, bytes]:
    """Derive two keys of 32 bytes from the chaining key *key* and *data*."""
    secret = hmac_digest(key, data)
    first = hmac_digest(secret, b"\x01")
    return first, hmac_digest(secret, first + b"\x02")


def kdf3(key: bytes | bytearray, data: bytes | bytearray) -> tuple[bytes, bytes, bytes]:
    """Derive three keys of 32 bytes from the chaining key *key* and *data*."""
    secret = hmac_digest(key, data)
    first = hmac_digest(secret, b"\x01")
    second = hmac_digest(secret, first + b"\x02")
    return first, second, hmac_digest(secret, second + b"\x03")
