"""Secrets of a session in bytes that can be overwritten."""

from __future__ import annotations

from overlay.crypto import noise
from overlay.wire.messages import KEY_SIZE


def preshared_bytes(preshared_key: bytes | None) -> bytearray:
    """Return a copy of *preshared_key*, or zeros for None.  Raises ValueError for another number of bytes than 32."""
    if preshared_key is None:
        return bytearray(noise.NO_PRESHARED_KEY)
    if len(preshared_key) != KEY_SIZE:
        raise ValueError(f"a preshared key has {KEY_SIZE} bytes, not {len(preshared_key)}")
    return bytearray(preshared_key)


def overwrite(secret: bytearray) -> None:
    """Overwrite *secret* with zeros."""
    secret[:] = bytes(len(secret))
