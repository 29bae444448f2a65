"""Where the upper layer of a packet begins, and which fragment it is (RFC 791, RFC 8200 section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overlay.wire.ip import (
    EXTENSIONS,
    FRAGMENT,
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer


# Ours: what tells protocols apart in the key of a flow
SUFFIXES = {PROTOCOL_TCP: b"", PROTOCOL_UDP: b"\x11", PROTOCOL_SCTP: b"\x84"}


class Upper(NamedTuple):
    """What a packet carries."""

    protocol: int
    at: int  # where it begins, which is inside the packet
    fragment: bytes = b""  # what all fragments of one packet have in common; nothing for a whole packet
    is_later: bool = False  # a fragment other than the first: what begins there has no header


def upper_of(packet: Buffer) -> Upper | None:
    """Return what *packet* carries, which may be the beginning of one; None if the headers end before that is known."""
    if not len(packet):
        return None
    version = packet[0] >> 4
    if version == 4:
        return _ipv4(packet)
    return _ipv6(packet) if version == 6 else None


def key_of(packet: Buffer) -> bytes | None:
    """Return the key of the flow that *packet* is of; None for what has no ports, and for fragments."""
    upper = upper_of(packet)
    if upper is None or upper.fragment or upper.protocol not in SUFFIXES or len(packet) < upper.at + 4:
        return None
    addresses = bytes(packet[12:20]) if packet[0] >> 4 == 4 else bytes(packet[8:40])
    return addresses + bytes(packet[upper.at : upper.at + 4]) + SUFFIXES[upper.protocol]


def _ipv4(packet: Buffer) -> Upper | None:
    header = (packet[0] & 15) * 4
    if not IPV4_HEADER_SIZE <= header < len(packet):
        return None
    protocol, flags = packet[9], packet[6] << 8 | packet[7]
    if not flags & 0x3FFF:
        return Upper(protocol, header)
    which = bytes(packet[12:20]) + bytes(packet[4:6]) + bytes(packet[9:10])
    return Upper(protocol, header, which, is_later=bool(flags & 0x1FFF))


def _ipv6(packet: Buffer) -> Upper | None:
    if len(packet) <= IPV6_HEADER_SIZE:
        return None
    protocol, at, which, is_later = packet[6], IPV6_HEADER_SIZE, b"", False
    while protocol in EXTENSIONS and not is_later:
        if len(packet) < at + 8:
            return None
        size = 8
        if protocol == FRAGMENT:
            flags = packet[at + 2] << 8 | packet[at + 3]
            is_later = bool(flags & 0xFFF8)
            if flags & 0xFFF9:  # else it is the only fragment (RFC 6946)
                which = bytes(packet[8:40]) + bytes(packet[at + 4 : at + 8])
        else:
            size += packet[at + 1] * 8
        protocol, at = packet[at], at + size
    return Upper(protocol, at, which, is_later) if at < len(packet) else None
