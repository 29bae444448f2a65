"""The four messages of WireGuard (whitepaper section 5.4).

Every integer is little endian.  A message begins with its type in one byte and three zero bytes.  These are compared as
one 32-bit number, so a message with a reserved byte that is not zero has an unknown type.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from overlay.errors import PacketError

# Specification (whitepaper sections 5.4.2 to 5.4.7)
TYPE_INITIATION = 1
TYPE_RESPONSE = 2
TYPE_COOKIE_REPLY = 3
TYPE_TRANSPORT = 4

KEY_SIZE = 32
TAG_SIZE = 16  # Poly1305
PADDING = 16  # sealed payloads are padded with zeros to a multiple of this
MAC_SIZE = 16
MACS_SIZE = 2 * MAC_SIZE  # mac1 and mac2, the last bytes of an initiation and of a response
TIMESTAMP_SIZE = 12  # TAI64N
COOKIE_NONCE_SIZE = 24

NO_MAC = bytes(MAC_SIZE)


def message_type(datagram: bytes | bytearray | memoryview) -> int:
    """Return the first 32 bits as a number: one of the types above, or anything else if it is not a message."""
    return int.from_bytes(datagram[:4], "little")


# Handshake initiation, 148 bytes:
# - 4 bytes type (1)
# - 4 bytes sender index
# - 32 bytes ephemeral public key of the initiator
# - 48 bytes static public key of the initiator, sealed
# - 28 bytes TAI64N timestamp, sealed
# - 16 bytes mac1
# - 16 bytes mac2, zero without a cookie
INITIATION = struct.Struct("<II32s48s28s16s16s")


@dataclass(frozen=True, slots=True)
class Initiation:
    """The first message of a handshake (whitepaper section 5.4.2)."""

    sender_index: int
    ephemeral: bytes
    sealed_static: bytes
    sealed_timestamp: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    @classmethod
    def parse(cls, datagram: bytes) -> Self:
        """Read a datagram of type 1.  Raises PacketError, and nothing else, for any bytes."""
        if len(datagram) != INITIATION.size:
            raise PacketError("initiation_size")
        kind, *fields = INITIATION.unpack(datagram)
        if kind != TYPE_INITIATION:
            raise PacketError("initiation_type")
        return cls(*fields)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value."""
        return INITIATION.pack(
            TYPE_INITIATION,
            self.sender_index,
            self.ephemeral,
            self.sealed_static,
            self.sealed_timestamp,
            self.mac1,
            self.mac2,
        )


# Handshake response, 92 bytes:
# - 4 bytes type (2)
# - 4 bytes sender index
# - 4 bytes receiver index, the initiation's sender index
# - 32 bytes ephemeral public key of the responder
# - 16 bytes nothing, sealed: a tag alone
# - 16 bytes mac1
# - 16 bytes mac2, zero without a cookie
RESPONSE = struct.Struct("<III32s16s16s16s")


@dataclass(frozen=True, slots=True)
class Response:
    """The second and last message of a handshake (whitepaper section 5.4.3)."""

    sender_index: int
    receiver_index: int
    ephemeral: bytes
    sealed_nothing: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    @classmethod
    def parse(cls, datagram: bytes) -> Self:
        """Read a datagram of type 2.  Raises PacketError, and nothing else, for any bytes."""
        if len(datagram) != RESPONSE.size:
            raise PacketError("response_size")
        kind, *fields = RESPONSE.unpack(datagram)
        if kind != TYPE_RESPONSE:
            raise PacketError("response_type")
        return cls(*fields)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value."""
        return RESPONSE.pack(
            TYPE_RESPONSE,
            self.sender_index,
            self.receiver_index,
            self.ephemeral,
            self.sealed_nothing,
            self.mac1,
            self.mac2,
        )


# Cookie reply, 64 bytes:
# - 4 bytes type (3)
# - 4 bytes receiver index, the sender index of the message it answers
# - 24 bytes nonce
# - 32 bytes cookie, sealed
COOKIE_REPLY = struct.Struct("<II24s32s")


@dataclass(frozen=True, slots=True)
class CookieReply:
    """What a responder under load sends instead of a response (whitepaper section 5.4.7)."""

    receiver_index: int
    nonce: bytes
    sealed_cookie: bytes

    @classmethod
    def parse(cls, datagram: bytes) -> Self:
        """Read a datagram of type 3.  Raises PacketError, and nothing else, for any bytes."""
        if len(datagram) != COOKIE_REPLY.size:
            raise PacketError("cookie_size")
        kind, *fields = COOKIE_REPLY.unpack(datagram)
        if kind != TYPE_COOKIE_REPLY:
            raise PacketError("cookie_type")
        return cls(*fields)

    def build(self) -> bytes:
        """Return the bytes that parse() reads back into an equal value."""
        return COOKIE_REPLY.pack(TYPE_COOKIE_REPLY, self.receiver_index, self.nonce, self.sealed_cookie)


# Transport message:
# - 4 bytes type (4)
# - 4 bytes receiver index
# - 8 bytes counter
# - the sealed payload, 16 bytes of tag included
TRANSPORT_HEADER = struct.Struct("<IIQ")
