"""VRRP advertisements: which router of a group has its virtual addresses (RFC 9568 version 3, RFC 3768 version 2).

Numbers are big endian.  An advertisement is the payload of an IP packet of protocol 112 whose TTL is 255.

- 4 bits version, 4 bits type (1); 1 byte each: identifier of the virtual router, priority, number of addresses
- version 3: 4 bits zero and 12 bits interval, in hundredths of a second; version 2: 1 byte kind of authentication,
  1 byte interval in seconds
- 2 bytes checksum: of the message, in version 3 with a pseudo header
- the addresses; in version 2, then 8 bytes of authentication
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from overlay.errors import PacketError
from overlay.wire.ip import checksum, pseudo_header_sum

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 9568 section 5, RFC 3768 section 5)
PROTOCOL_VRRP = 112
TTL = 255  # a value that a router has lowered is not from this link
GROUP_IPV4 = bytes((224, 0, 0, 18))
GROUP_IPV6 = bytes.fromhex("ff02000000000000 0000000000000012")
OWNER_PRIORITY, RESIGNING = 255, 0
ADVERTISEMENT = 1  # the only type
HEADER = struct.Struct("!BBBBHH")
CHECKSUM_AT = 6
LARGEST_INTERVAL = {2: 255.0, 3: 40.95}  # seconds, by version
NO_AUTHENTICATION, PASSWORD = 0, 1  # kinds of version 2; a third, by IPsec headers, was never used
AUTHENTICATION_SIZE = 8  # bytes
LINK_LOCAL = bytes.fromhex("fe80000000000000 02005efffe0002")  # RFC 9568 section 7.4, before the identifier


def link_local_of(router: int) -> bytes:
    """Return the link-local address of the virtual router *router*, derived from its virtual Ethernet address."""
    return LINK_LOCAL + bytes((router,))


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a router advertises about the group *router* (1 to 255).

    *priority* is 0 when it resigns, and 255 for the owner of the addresses.  *interval* is in seconds: whole ones in
    version 2, hundredths in version 3.  *addresses* have 4 or 16 bytes each.  *password*, of at most 8 bytes, is that
    of version 2; it is sent unencrypted.
    """

    version: int
    router: int
    priority: int
    interval: float
    addresses: tuple[bytes, ...]
    password: bytes = b""

    @classmethod
    def parse(cls, message: Buffer, source: bytes, destination: bytes) -> Self:
        """Read the payload of an IP packet from *source* to *destination*, of 4 or 16 bytes each.

        Raises PacketError ``vrrp_form``, ``vrrp_version`` or ``vrrp_checksum``, and nothing else, in this order.
        """
        if len(message) < HEADER.size:
            raise PacketError("vrrp_form")
        first, router, priority, count, times, _ = HEADER.unpack_from(message)
        version, size = first >> 4, len(source)
        if version not in LARGEST_INTERVAL or (version == 2 and size == 16):
            raise PacketError("vrrp_version")
        end = HEADER.size + count * size
        whole = end + (AUTHENTICATION_SIZE if version == 2 else 0)
        if first & 15 != ADVERTISEMENT or len(message) < whole or not router:
            raise PacketError("vrrp_form")
        # In version 2, kernels and keepalived add nothing after it; version 3 ends with its addresses.
        message = message[:whole]
        start = pseudo_header_sum(source, destination, PROTOCOL_VRRP, whole) if version == 3 else 0
        if checksum(message, start):
            raise PacketError("vrrp_checksum")
        addresses = tuple(bytes(message[at : at + size]) for at in range(HEADER.size, end, size))
        password = b""
        if version == 2:
            kind, interval = times >> 8, float(times & 0xFF)
            if kind not in {NO_AUTHENTICATION, PASSWORD}:
                raise PacketError("vrrp_form")
            if kind == PASSWORD:
                password = bytes(message[end:]).rstrip(b"\0")
        else:
            interval = (times & 0xFFF) / 100
        if not interval:  # with it, silence could not be detected
            raise PacketError("vrrp_form")
        return cls(version, router, priority, interval, addresses, password)

    def build(self, source: bytes, destination: bytes) -> bytes:
        """Return the payload that parse() reads back."""
        if self.version == 2:
            kind = PASSWORD if self.password else NO_AUTHENTICATION
            times, tail = kind << 8 | int(self.interval), self.password.ljust(AUTHENTICATION_SIZE, b"\0")
        else:
            times, tail = round(self.interval * 100), b""
        first = self.version << 4 | ADVERTISEMENT
        head = HEADER.pack(first, self.router, self.priority, len(self.addresses), times, 0)
        message = head + b"".join(self.addresses) + tail
        start = (
            pseudo_header_sum(source, destination, PROTOCOL_VRRP, len(message)) if self.version == 3 else 0
        )
        check = checksum(message, start).to_bytes(2, "big")
        return message[:CHECKSUM_AT] + check + message[CHECKSUM_AT + 2 :]
