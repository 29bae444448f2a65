"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), which seals cookies.

The library has ChaCha20 (RFC 8439) but not the extended nonce.  HChaCha20 is missing: the ChaCha20 permutation without
its last step, the addition of the initial state.  So this module takes one block of key stream and subtracts the
initial state again, in the eight words that HChaCha20 returns.
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

# Specification (draft-irtf-cfrg-xchacha sections 2.2 and 2.3)
_HCHACHA_NONCE_SIZE = 16
_CONSTANTS = b"expand 32-byte k"
_WORDS = struct.Struct("<4I")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Derive a key of 32 bytes from *key* (32 bytes) and *nonce* (16 bytes)."""
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    return _subtract(block[:16], _CONSTANTS) + _subtract(block[48:], nonce)


def seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return *plaintext* sealed under *key* and the 24 bytes of *nonce*, followed by 16 bytes of tag."""
    return _cipher(key, nonce).encrypt(_inner_nonce(nonce), plaintext, associated)


def open_sealed(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Return the plaintext that seal() was given.  Raises InvalidTag if any of the four arguments differs."""
    return _cipher(key, nonce).decrypt(_inner_nonce(nonce), sealed, associated)


def _cipher(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hchacha20(key, nonce[:_HCHACHA_NONCE_SIZE]))


def _inner_nonce(nonce: bytes) -> bytes:
    return bytes(4) + nonce[_HCHACHA_NONCE_SIZE:]


def _subtract(words: bytes, initial: bytes) -> bytes:
    pairs = zip(_WORDS.unpack(words), _WORDS.unpack(initial), strict=True)
    return _WORDS.pack(*((word - start) & 0xFFFFFFFF for word, start in pairs))
