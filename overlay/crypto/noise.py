"""The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it (whitepaper section 5.4).

    initiator                                   responder
    create_initiation()  ── Initiation ──►      open_static(), then open_timestamp()
    consume_response()   ◄── Response ──        create_response()

Each is a function from values to values.  A state is frozen: a refused message raises PacketError, and the caller keeps
its state.  The responder reads an initiation in two steps, because it learns from the first who the initiator is, and
needs the secret that it shares with that peer for the second.

In the names of the whitepaper: a chaining key is C, a hash is H, static keys are S and ephemeral ones E.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from overlay.crypto.blake2s import digest, kdf1, kdf2, kdf3
from overlay.crypto.keys import PrivateKey
from overlay.errors import PacketError
from overlay.wire.messages import KEY_SIZE, Initiation, Response

if TYPE_CHECKING:
    from collections.abc import Callable

# Specification (whitepaper section 5.4)
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
NO_PRESHARED_KEY = bytes(KEY_SIZE)

_NONCE = bytes(12)  # a key of the handshake seals only one thing, so its counter stays 0
_CHAINING_KEY = digest(CONSTRUCTION)
_HASH = digest(_CHAINING_KEY + IDENTIFIER)


@dataclass(frozen=True, slots=True)
class InitiatorState:
    """What the initiator keeps until the response arrives."""

    ephemeral: PrivateKey = field(repr=False)
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedStatic:
    """An initiation whose static key has been opened: anyone who knows *initiator_public* may have sent it."""

    initiator_public: bytes
    message: Initiation
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedInitiation:
    """An initiation made by the owner of *initiator_public*; only *timestamp* can show whether it is a replay."""

    initiator_public: bytes
    timestamp: bytes
    message: Initiation
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


class HandshakeResult:
    """The keys of a completed handshake, until it is wiped.  Its repr does not show them."""

    __slots__ = ("_chaining_key", "_is_initiator")

    def __init__(self, chaining_key: bytes, *, is_initiator: bool) -> None:
        self._chaining_key = bytearray(chaining_key)
        self._is_initiator = is_initiator

    def transport_keys(self) -> tuple[bytes, bytes]:
        """Return the keys for sending and receiving (whitepaper section 5.4.5)."""
        return self._in_our_order(kdf2(self._live_chaining_key(), b""))

    def export(self, label: bytes) -> tuple[bytes, bytes]:
        """Return two more keys for *label*: from the initiator to the responder, and back.

        They are KDF2(chaining key, label).  The empty label gives the transport keys and is not allowed.
        """
        assert label, "the empty label belongs to the transport keys"
        return kdf2(self._live_chaining_key(), label)

    def wipe(self) -> None:
        """Overwrite the chaining key: no more keys can be derived."""
        self._chaining_key[:] = bytes(len(self._chaining_key))
        self._chaining_key.clear()

    def _live_chaining_key(self) -> bytearray:
        assert self._chaining_key, "the handshake's result has been wiped"
        return self._chaining_key

    def _in_our_order(self, keys: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return keys if self._is_initiator else (keys[1], keys[0])


def create_initiation(
    *,
    static: PrivateKey,
    responder_public: bytes,
    static_secret: bytes,
    timestamp: bytes,
    sender_index: int,
    entropy: Callable[[int], bytes],
) -> tuple[Initiation, InitiatorState]:
    """Return the first message, without MACs, and the state that awaits its answer (section 5.4.2).

    *static_secret* is DH(static, responder_public), which a caller computes once for a peer; *timestamp* is TAI64N,
    12 bytes.  Raises PacketError if *responder_public* is of low order.
    """
    ephemeral = PrivateKey.generate(entropy)
    hash_ = digest(_HASH + responder_public)
    chaining_key = kdf1(_CHAINING_KEY, ephemeral.public)
    hash_ = digest(hash_ + ephemeral.public)

    chaining_key, key = kdf2(chaining_key, ephemeral.exchange(responder_public))
    sealed_static = _seal(key, static.public, hash_)
    hash_ = digest(hash_ + sealed_static)

    chaining_key, key = kdf2(chaining_key, static_secret)
    sealed_timestamp = _seal(key, timestamp, hash_)
    hash_ = digest(hash_ + sealed_timestamp)

    message = Initiation(sender_index, ephemeral.public, sealed_static, sealed_timestamp)
    return message, InitiatorState(ephemeral, chaining_key, hash_)


def open_static(static: PrivateKey, message: Initiation) -> OpenedStatic:
    """Open the static key in *message*, as its responder: the claimed sender (section 5.4.2, first half)."""
    hash_ = digest(_HASH + static.public)
    chaining_key = kdf1(_CHAINING_KEY, message.ephemeral)
    hash_ = digest(hash_ + message.ephemeral)

    chaining_key, key = kdf2(chaining_key, static.exchange(message.ephemeral))
    initiator_public = _open(key, message.sealed_static, hash_, "initiation_static")
    hash_ = digest(hash_ + message.sealed_static)
    return OpenedStatic(initiator_public, message, chaining_key, hash_)


def open_timestamp(opened: OpenedStatic, static_secret: bytes) -> OpenedInitiation:
    """Return the initiation with its timestamp, proven to come from its initiator (section 5.4.2, second half).

    *static_secret* is the DH of our static key and ``opened.initiator_public``.
    """
    message = opened.message
    chaining_key, key = kdf2(opened.chaining_key, static_secret)
    timestamp = _open(key, message.sealed_timestamp, opened.hash, "initiation_timestamp")
    hash_ = digest(opened.hash + message.sealed_timestamp)
    return OpenedInitiation(opened.initiator_public, timestamp, message, chaining_key, hash_)


def create_response(
    opened: OpenedInitiation,
    *,
    preshared_key: bytes | bytearray,
    sender_index: int,
    entropy: Callable[[int], bytes],
) -> tuple[Response, HandshakeResult]:
    """Return the answer, without MACs, and the responder's keys (section 5.4.3)."""
    initiation = opened.message
    ephemeral = PrivateKey.generate(entropy)
    chaining_key = kdf1(opened.chaining_key, ephemeral.public)
    hash_ = digest(opened.hash + ephemeral.public)
    chaining_key = kdf1(chaining_key, ephemeral.exchange(initiation.ephemeral))
    chaining_key = kdf1(chaining_key, ephemeral.exchange(opened.initiator_public))

    chaining_key, mixed, key = kdf3(chaining_key, preshared_key)
    hash_ = digest(hash_ + mixed)
    sealed_nothing = _seal(key, b"", hash_)

    message = Response(sender_index, initiation.sender_index, ephemeral.public, sealed_nothing)
    return message, HandshakeResult(chaining_key, is_initiator=False)


def consume_response(
    state: InitiatorState, message: Response, *, static: PrivateKey, preshared_key: bytes | bytearray
) -> HandshakeResult:
    """Return the initiator's keys if *message* answers the initiation of *state* (section 5.4.3).

    Raises PacketError if it does not, or was made with another preshared key.
    """
    chaining_key = kdf1(state.chaining_key, message.ephemeral)
    hash_ = digest(state.hash + message.ephemeral)
    chaining_key = kdf1(chaining_key, state.ephemeral.exchange(message.ephemeral))
    chaining_key = kdf1(chaining_key, static.exchange(message.ephemeral))

    chaining_key, mixed, key = kdf3(chaining_key, preshared_key)
    hash_ = digest(hash_ + mixed)
    _open(key, message.sealed_nothing, hash_, "response_seal")
    return HandshakeResult(chaining_key, is_initiator=True)


def _seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, associated)


def _open(key: bytes, sealed: bytes, associated: bytes, reason: str) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        raise PacketError(reason) from None
