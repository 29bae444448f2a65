"""Bulk units made in the obvious way, only from the text of overlay/wire/bulk.py: a second opinion.

It seals and opens with one call each and copies where it likes; nothing here is shared with the code under test.
"""

from __future__ import annotations

import hmac
from hashlib import blake2s

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

AES, CHACHA = 1, 2
NAMES = {AES: b"AES-256-GCM", CHACHA: b"ChaCha20-Poly1305"}
AEADS = {AES: AESGCM, CHACHA: ChaCha20Poly1305}


def kdf2(chaining_key, label):
    """Return the two keys of the whitepaper's KDF2: HMAC of BLAKE2s, each step over the one before."""

    def step(key, data):
        return hmac.new(key, data, blake2s).digest()

    secret = step(chaining_key, label)
    first = step(secret, b"\x01")
    return first, step(secret, first + b"\x02")


def unit_keys(chaining_key, cipher):
    """Return the keys from the initiator to the responder, and back."""
    return kdf2(chaining_key, b"overlay bulk v1 " + NAMES[cipher])


def plaintext(packet, gso_type, segment):
    return bytes([gso_type, 0]) + segment.to_bytes(2, "little") + packet


def sealed(key, cipher, counter, plain):
    return AEADS[cipher](key).encrypt(bytes(4) + counter.to_bytes(8, "little"), plain, None)


def fragment(number, count, cipher, index, counter, piece):
    header = bytes([5, number, count, cipher]) + index.to_bytes(4, "little") + counter.to_bytes(8, "little")
    return header + piece


def datagrams(unit, cipher, index, counter, piece):
    """Cut a sealed unit into pieces of *piece* bytes; the last has its own length."""
    pieces = [unit[at : at + piece] for at in range(0, len(unit), piece)]
    return [fragment(number, len(pieces), cipher, index, counter, data) for number, data in enumerate(pieces)]


def opened(key, fragments):
    """Return the plaintext of a unit of which all *fragments* exist, in any order."""
    pieces = {}
    for each in fragments:
        assert each[0] == 5
        pieces[each[1]] = each[16:]
    (count,) = {each[2] for each in fragments}
    (cipher,) = {each[3] for each in fragments}
    (counter,) = {int.from_bytes(each[8:16], "little") for each in fragments}
    whole = b"".join(pieces[number] for number in range(count))
    return AEADS[cipher](key).decrypt(bytes(4) + counter.to_bytes(8, "little"), whole, None)
