"""The keys that a node answers to, and which of them each peer knows.

Usually that is one private key.  While it is being replaced there are two, the one in use and the next, and peers learn
the next one at different times.  The mac1 of a message tells which of them it was made for, so that a stranger's
message costs one more MAC and no additional Diffie-Hellman.  A peer is called with the key of its last handshake; if it
does not answer, with the two in turn.  Protection against replay belongs to the peer, and covers both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overlay.crypto import cookies
from overlay.errors import PacketError

if TYPE_CHECKING:
    from overlay.crypto.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Identity:
    """One private key of a node, with the values that identify messages to it."""

    private_key: PrivateKey
    mac1_key: bytes = field(repr=False)


class Identities:
    """The keys that a node answers to.  The first is used to call peers that have not been heard from yet."""

    __slots__ = ("known",)

    def __init__(self, *private_keys: PrivateKey) -> None:
        self.known: tuple[Identity, ...] = ()
        self.use(*private_keys)

    def use(self, *private_keys: PrivateKey) -> None:
        """Answer to *private_keys*, one or two, from now on, and to no others."""
        assert 1 <= len(private_keys) <= 2
        before = {each.private_key: each for each in self.known}
        self.known = tuple(
            before.get(key) or Identity(key, cookies.mac1_key(key.public)) for key in private_keys
        )

    def addressed_by(self, datagram: bytes) -> Identity:
        """Return the key that an initiation or a response was made for.  Raises PacketError ``mac1`` if it is none of
        them.
        """
        for each in self.known:
            if cookies.is_mac1_valid(each.mac1_key, datagram):
                return each
        raise PacketError("mac1")

    def includes(self, public_key: bytes) -> bool:
        """Return whether *public_key* is ours."""
        return any(each.private_key.public == public_key for each in self.known)


class Acquaintance:
    """Which of our keys the peer with *public_key* knows, and the secrets that they share with its key."""

    __slots__ = ("_identities", "_public_key", "_secrets", "used")

    def __init__(self, identities: Identities, public_key: bytes) -> None:
        self._identities, self._public_key = identities, public_key
        self._secrets: dict[bytes, bytes] = {}  # a cache, filled on first use: ten thousand take 0.3 s
        self.used: Identity | None = None
        """The key of the last handshake in which the peer proved that it knows it; it may have been replaced since."""

    @property
    def used_key(self) -> bytes | None:
        """Return the public key of ``used``; None before the first handshake."""
        return None if self.used is None else self.used.private_key.public

    def secret(self, identity: Identity) -> bytes:
        """Return the DH of the key of *identity* and the peer's.  Raises PacketError if the latter is of low order."""
        public = identity.private_key.public
        found = self._secrets.get(public)
        if found is None:
            if len(self._secrets) > len(self._identities.known):
                self.forget()  # secrets of keys that are no longer ours
            found = self._secrets[public] = identity.private_key.exchange(self._public_key)
        return found

    def has_secret(self) -> bool:
        """Return whether the peer's public key can be used; nothing may be sent to a peer whose key is of low order."""
        try:
            self.secret(self._identities.known[0])
        except PacketError:
            return False
        return True

    def to_call_by(self, retries: int) -> Identity:
        """Return which of our keys to use to call the peer, for the first time or after *retries* without an answer."""
        known = self._identities.known
        first = known.index(self.used) if self.used in known else 0
        return known[(first + retries) % len(known)]

    def forget(self) -> None:
        """Forget the secrets.  Immutable bytes cannot be overwritten, only released."""
        self._secrets.clear()
