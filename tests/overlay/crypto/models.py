"""Slow and obvious twins of what ``overlay.crypto`` does cleverly, written from the documents' formulas."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

# The replay window: a set and two conditions.


@dataclass
class SlowReplayWindow:
    """A counter is good if it was not seen and is at most 8128 below the greatest seen."""

    seen: set[int] = field(default_factory=set)

    def check(self, counter: int) -> bool:
        newest = max(self.seen, default=-1)
        return counter not in self.seen and counter >= newest - 8128 and counter < 2**64 - 2**13 - 1

    def mark(self, counter: int) -> None:
        if self.check(counter):
            self.seen.add(counter)

    def accept_run(self, first: int, count: int) -> bool:
        run = range(first, first + count)
        if first <= max(self.seen, default=-1) or not all(self.check(counter) for counter in run):
            return False
        self.seen.update(run)
        return True


# HChaCha20: twenty rounds over the state of draft-irtf-cfrg-xchacha section 2.2.


def slow_hchacha20(key: bytes, nonce: bytes) -> bytes:
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def rotate(word: int, by: int) -> int:
        return (word << by | word >> (32 - by)) & 0xFFFFFFFF

    def quarter(a: int, b: int, c: int, d: int) -> None:  # RFC 8439 section 2.1
        for to, add, mix, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[to] = (state[to] + state[add]) & 0xFFFFFFFF
            state[mix] = rotate(state[mix] ^ state[to], by)

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for diagonal in range(4):
            quarter(diagonal, 4 + (diagonal + 1) % 4, 8 + (diagonal + 2) % 4, 12 + (diagonal + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


# The handshake, line by line from the whitepaper, sections 5.4.2 to 5.4.5.  Msg is the growing datagram.


def slow_hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def slow_hmac(key: bytes, data: bytes) -> bytes:  # RFC 2104
    key = slow_hash(key) if len(key) > 64 else key
    key = key.ljust(64, b"\0")
    inner = slow_hash(bytes(byte ^ 0x36 for byte in key) + data)
    return slow_hash(bytes(byte ^ 0x5C for byte in key) + inner)


def slow_kdf(n: int, key: bytes, data: bytes) -> list[bytes]:
    secret = slow_hmac(key, data)
    taus = [b""]
    for number in range(1, n + 1):
        taus.append(slow_hmac(secret, taus[-1] + bytes([number])))
    return taus[1:]


def slow_dh(private: bytes, public: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def slow_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def slow_seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, associated)


def slow_open(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, associated)


def slow_mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def slow_mac1(receiver_public: bytes, body: bytes) -> bytes:
    return slow_mac(slow_hash(b"mac1----" + receiver_public), body)


@dataclass
class SlowNode:
    """One end of one handshake, in either role.  All random input is passed in; an error is an exception."""

    private: bytes
    peer_public: bytes
    psk: bytes = bytes(32)
    ephemeral: bytes = b""
    c: bytes = b""
    h: bytes = b""
    timestamp: bytes = b""
    send: bytes = b""
    receive: bytes = b""

    def initiation(self, index: int, ephemeral: bytes, timestamp: bytes) -> bytes:
        s_r = self.peer_public
        self.ephemeral, e_pub = ephemeral, slow_public(ephemeral)
        c = slow_hash(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        h = slow_hash(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com")
        h = slow_hash(h + s_r)
        (c,) = slow_kdf(1, c, e_pub)
        h = slow_hash(h + e_pub)
        c, k = slow_kdf(2, c, slow_dh(ephemeral, s_r))
        static = slow_seal(k, slow_public(self.private), h)
        h = slow_hash(h + static)
        c, k = slow_kdf(2, c, slow_dh(self.private, s_r))
        stamp = slow_seal(k, timestamp, h)
        self.c, self.h = c, slow_hash(h + stamp)
        body = b"\1\0\0\0" + index.to_bytes(4, "little") + e_pub + static + stamp
        return body + slow_mac1(s_r, body) + bytes(16)

    def response_to(self, initiation: bytes, index: int, ephemeral: bytes) -> bytes:
        own_pub = slow_public(self.private)
        sender, e_i = initiation[4:8], initiation[8:40]
        static, stamp = initiation[40:88], initiation[88:116]
        c = slow_hash(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        h = slow_hash(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com")
        h = slow_hash(h + own_pub)
        (c,) = slow_kdf(1, c, e_i)
        h = slow_hash(h + e_i)
        c, k = slow_kdf(2, c, slow_dh(self.private, e_i))
        s_i = slow_open(k, static, h)
        assert s_i == self.peer_public
        h = slow_hash(h + static)
        c, k = slow_kdf(2, c, slow_dh(self.private, s_i))
        self.timestamp = slow_open(k, stamp, h)
        h = slow_hash(h + stamp)

        e_pub = slow_public(ephemeral)
        (c,) = slow_kdf(1, c, e_pub)
        h = slow_hash(h + e_pub)
        (c,) = slow_kdf(1, c, slow_dh(ephemeral, e_i))
        (c,) = slow_kdf(1, c, slow_dh(ephemeral, s_i))
        c, tau, k = slow_kdf(3, c, self.psk)
        h = slow_hash(h + tau)
        empty = slow_seal(k, b"", h)
        self.c, self.h = c, slow_hash(h + empty)
        self.receive, self.send = slow_kdf(2, c, b"")
        body = b"\2\0\0\0" + index.to_bytes(4, "little") + sender + e_pub + empty
        return body + slow_mac1(s_i, body) + bytes(16)

    def finish(self, response: bytes) -> None:
        e_r, empty = response[12:44], response[44:60]
        (c,) = slow_kdf(1, self.c, e_r)
        h = slow_hash(self.h + e_r)
        (c,) = slow_kdf(1, c, slow_dh(self.ephemeral, e_r))
        (c,) = slow_kdf(1, c, slow_dh(self.private, e_r))
        c, tau, k = slow_kdf(3, c, self.psk)
        h = slow_hash(h + tau)
        assert slow_open(k, empty, h) == b""
        self.c = c
        self.send, self.receive = slow_kdf(2, c, b"")
