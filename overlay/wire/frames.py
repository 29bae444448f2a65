"""Ethernet frames in transport payloads, and what the overlay reads of them (IEEE 802.3, IEEE 802.1Q, RFC 826,
RFC 4861).

A payload with a frame, between two agents whose device is a tap:

- 1 byte 0xE0
- 1 byte count of the zeros after the frame, which pad the payload
- the frame, from its destination on and without the checksum at its end
- the zeros

The first nibble distinguishes payloads: 4 and 6 are IP packets, 8 and 9 control messages, which begin with a msgpack
map or array.  E, as in Ethernet, is neither, so a plain WireGuard peer and an agent with a tun refuse it.  Two bytes
before the 14 of the Ethernet header align the IP header to a multiple of 4; and the count restores the length of the
frame, which not every protocol inside contains.

Numbers are big endian, as always in frames.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from overlay.errors import PacketError
from overlay.wire.ethernet import (
    ARP,
    ARP_ETHERNET_IPV4,
    ARP_IEEE_802,
    ARP_REPLY,
    ARP_REQUEST,
    ETHERNET_SIZE,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_TAGS,
    ND_ADVERTISEMENT,
    ND_HOP_LIMIT,
    ND_REDIRECT,
    ND_ROUTER,
    ND_SIZE,
    ND_SIZES,
    ND_SOLICITATION,
    ND_SOLICITED,
    ND_SOURCE_LINK_ADDRESS,
    ND_TARGET_LINK_ADDRESS,
    VLAN_SIZE,
)
from overlay.wire.ip import (
    EXTENSIONS,
    FRAGMENT,
    IPV4_HEADER_SIZE,
    IPV6_HEADER_SIZE,
    PROTOCOL_ICMPV6,
    Buffer,
    checksum,
    pseudo_header_sum,
)

# Ours
TYPE_FRAME = 0xE0
FRAME_HEADER = struct.Struct("BB")
FRAME_HEADER_SIZE = FRAME_HEADER.size  # 2
FRAME_OVERHEAD = FRAME_HEADER_SIZE + ETHERNET_SIZE  # what an untagged frame adds to the packet in it
MAXIMUM_TAGS = 2

_ETHERTYPE = struct.Struct("!H").unpack_from
_NEXT_HEADER = 6  # of IPv6
_MAY_BE_ND = EXTENSIONS | {PROTOCOL_ICMPV6}
_PLAIN_IPV4 = b"\x08\x00\x45"  # the most common: no tag, no options


def is_frame(payload: Buffer) -> bool:
    """Return whether *payload* begins like one with a frame."""
    return len(payload) > 0 and payload[0] == TYPE_FRAME


def parse(payload: Buffer) -> tuple[int, int]:
    """Return where the frame in *payload* begins and ends.  Raises PacketError, and nothing else, for any bytes."""
    if not is_frame(payload):
        raise PacketError("no_frame")
    size = len(payload)
    if size < FRAME_OVERHEAD:
        raise PacketError("frame_short")
    end = size - payload[1]
    if end < FRAME_OVERHEAD:
        raise PacketError("frame_padding")
    return FRAME_HEADER_SIZE, end


def build(frame: Buffer, padding: int = 0) -> bytes:
    """Return the payload in which parse() finds *frame*, with *padding* zeros behind it."""
    return b"".join((FRAME_HEADER.pack(TYPE_FRAME, padding), frame, bytes(padding)))


def ethertype(frame: Buffer) -> tuple[int, int]:
    """Return the EtherType of a frame after its VLAN tags, and where its content begins; 0 if that cannot be
    determined.
    """
    at = ETHERNET_SIZE
    for _ in range(MAXIMUM_TAGS + 1):
        if len(frame) < at:
            break
        (found,) = _ETHERTYPE(frame, at - 2)
        if found not in ETHERTYPE_TAGS:
            return found, at
        at += VLAN_SIZE
    return 0, ETHERNET_SIZE


class Solicitation(NamedTuple):
    """A question for the holder of *target*: an ARP request, or an IPv6 neighbour solicitation (RFC 826, RFC 4861).

    *address* is the asker's, all zeros if it has none yet and asks whether another host has the target.
    """

    mac: bytes
    address: bytes
    target: bytes


class Announcement(NamedTuple):
    """A claim that *address* is at *mac*.  *is_router* matters for IPv6 only."""

    mac: bytes
    address: bytes
    is_router: bool = False


def read_neighbour(frame: Buffer) -> tuple[Solicitation | None, Announcement | None]:
    """Return the question and the claim in an untagged frame about who has which address; an ARP request is both.

    None for a frame of another kind, or a malformed one.  An IPv6 solicitation makes no claim: only an advertisement
    says whether its sender is a router, which an answer on its behalf would have to say.
    """
    if len(frame) < ETHERNET_SIZE:
        return None, None
    (kind,) = _ETHERTYPE(frame, ETHERNET_SIZE - 2)
    if kind == ETHERTYPE_ARP:
        return _read_arp(frame)
    if kind == ETHERTYPE_IPV6:
        return _read_nd(frame)
    return None, None


def _read_arp(frame: Buffer) -> tuple[Solicitation | None, Announcement | None]:
    if len(frame) < ETHERNET_SIZE + ARP.size:
        return None, None
    *form, operation, mac, address, _, target = ARP.unpack_from(frame, ETHERNET_SIZE)
    if tuple(form) != ARP_ETHERNET_IPV4 or operation not in {ARP_REQUEST, ARP_REPLY}:
        return None, None
    asks = Solicitation(mac, address, target) if operation == ARP_REQUEST else None
    return asks, Announcement(mac, address) if any(address) else None


def _read_nd(frame: Buffer) -> tuple[Solicitation | None, Announcement | None]:
    found = _find_nd(frame[ETHERNET_SIZE:])
    if found is None:
        return None, None
    source, message = found
    target = bytes(message[8:24])
    if message[0] == ND_SOLICITATION:
        return Solicitation(bytes(frame[6:12]), source, target), None
    if message[0] != ND_ADVERTISEMENT:
        return None, None
    mac = _link_address(message[ND_SIZE:], ND_TARGET_LINK_ADDRESS)
    return None, Announcement(mac, target, bool(message[4] & ND_ROUTER)) if mac else None


def _find_nd(packet: Buffer) -> tuple[bytes, Buffer] | None:
    """Return the source and the ICMPv6 message of *packet* if it is valid neighbour discovery, directly after its
    header.
    """
    if (
        len(packet) <= IPV6_HEADER_SIZE
        or packet[0] >> 4 != 6
        or packet[_NEXT_HEADER] != PROTOCOL_ICMPV6
        or packet[7] != ND_HOP_LIMIT
    ):
        return None
    length, least = packet[4] << 8 | packet[5], ND_SIZES.get(packet[IPV6_HEADER_SIZE])
    if least is None or not least <= length <= len(packet) - IPV6_HEADER_SIZE:
        return None
    message = packet[IPV6_HEADER_SIZE : IPV6_HEADER_SIZE + length]
    source = bytes(packet[8:24])
    total = pseudo_header_sum(source, packet[24:40], PROTOCOL_ICMPV6, length)
    return None if message[1] or checksum(message, total) else (source, message)


def _link_address(options: Buffer, kind: int) -> bytes:
    """Return the link-layer address in the option *kind* among *options*; empty if there is none (RFC 4861 section
    4.6).
    """
    at = 0
    while at + 8 <= len(options) and options[at + 1]:
        if options[at] == kind and options[at + 1] == 1:
            return bytes(options[at + 2 : at + 8])
        at += options[at + 1] * 8
    return b""


# A kernel accepts more claims than read_neighbour() reads, and all must be checked before a frame is let in: ARP of
# both Ethernet hardware types, anything behind any number of tags, because those of VLAN 0 have no meaning, and
# link-layer addresses in any message of neighbour discovery.


def may_claim(frame: Buffer) -> bool:
    """Return whether read_claims() must see *frame*; if only its Ethernet header is given, the answer may be a false
    positive.
    """
    kind, at = _behind_tags(frame)
    if kind == ETHERTYPE_IPV6:
        return len(frame) <= at + _NEXT_HEADER or frame[at + _NEXT_HEADER] in _MAY_BE_ND
    return kind == ETHERTYPE_ARP


def read_claims(frame: Buffer) -> list[bytes]:
    """Return the IP addresses that *frame* makes a kernel believe to be at an Ethernet address in it.

    Raises PacketError ``neighbour`` for neighbour discovery behind extension headers, which has no legitimate use.
    """
    kind, at = _behind_tags(frame)
    packet = frame[at:]
    if kind == ETHERTYPE_ARP and len(packet) >= ARP.size:
        hardware, *form, operation, _, address, _, _ = ARP.unpack_from(packet)
        is_ethernet = (
            hardware in {ARP_ETHERNET_IPV4[0], ARP_IEEE_802} and tuple(form) == ARP_ETHERNET_IPV4[1:]
        )
        return [address] if is_ethernet and operation in {ARP_REQUEST, ARP_REPLY} and any(address) else []
    if kind != ETHERTYPE_IPV6 or len(packet) <= IPV6_HEADER_SIZE:
        return []
    if _hides_nd(packet):
        raise PacketError("neighbour")
    found = _find_nd(packet)
    if found is None:
        return []
    source, message = found
    options = message[ND_SIZES[message[0]] :]
    claims = [source] if any(source) and _link_address(options, ND_SOURCE_LINK_ADDRESS) else []
    if message[0] in {ND_ADVERTISEMENT, ND_REDIRECT} and _link_address(options, ND_TARGET_LINK_ADDRESS):
        claims.append(bytes(message[8:24]))
    return claims


def _behind_tags(frame: Buffer) -> tuple[int, int]:
    """Return the EtherType of a frame after all its VLAN tags, and where its content begins; 0 if it ends before."""
    at = ETHERNET_SIZE
    while len(frame) >= at:
        (kind,) = _ETHERTYPE(frame, at - 2)
        if kind not in ETHERTYPE_TAGS:
            return kind, at
        at += VLAN_SIZE
    return 0, at


def _hides_nd(packet: Buffer) -> bool:
    """Return whether *packet*, with a whole IPv6 header, has neighbour discovery behind extension headers."""
    protocol, at = packet[_NEXT_HEADER], IPV6_HEADER_SIZE
    while protocol in EXTENSIONS and len(packet) >= at + 8:
        if protocol == FRAGMENT and (packet[at + 2] or packet[at + 3] & 0xF8):
            return False  # not the first
        size = 8 if protocol == FRAGMENT else (packet[at + 1] + 1) * 8
        protocol, at = packet[at], at + size
    return (
        at > IPV6_HEADER_SIZE
        and protocol == PROTOCOL_ICMPV6
        and len(packet) > at
        and packet[7] == ND_HOP_LIMIT
        and packet[at] in ND_SIZES
    )


def build_answer(asked: Solicitation, mac: bytes, *, is_router: bool = False) -> bytes:
    """Return the frame that answers *asked* on behalf of the target's owner, whose Ethernet address is *mac*."""
    if len(asked.target) == 4:
        arp = ARP.pack(*ARP_ETHERNET_IPV4, ARP_REPLY, mac, asked.target, asked.mac, asked.address)
        return asked.mac + mac + ETHERTYPE_ARP.to_bytes(2, "big") + arp
    # Without the flag Override, as required of proxies (RFC 4861 section 7.2.8).
    flags = ND_SOLICITED | (ND_ROUTER if is_router else 0)
    message = bytearray(struct.pack("!BBHB3x16sBB6s", ND_ADVERTISEMENT, 0, 0, flags, asked.target, 2, 1, mac))
    total = pseudo_header_sum(asked.target, asked.address, PROTOCOL_ICMPV6, len(message))
    message[2:4] = checksum(message, total).to_bytes(2, "big")
    header = struct.pack("!IHBB", 6 << 28, len(message), PROTOCOL_ICMPV6, ND_HOP_LIMIT)
    packet = header + asked.target + asked.address + message
    return asked.mac + mac + ETHERTYPE_IPV6.to_bytes(2, "big") + packet


def ip_start(frame: Buffer) -> int:
    """Return where the IP packet in *frame* begins; 0 if there is none with a whole header."""
    if len(frame) >= ETHERNET_SIZE + IPV4_HEADER_SIZE and frame[12:15] == _PLAIN_IPV4:
        return ETHERNET_SIZE
    kind, at = ethertype(frame)
    if kind == ETHERTYPE_IPV4:
        is_whole = len(frame) >= at + IPV4_HEADER_SIZE and frame[at] >> 4 == 4
    elif kind == ETHERTYPE_IPV6:
        is_whole = len(frame) >= at + IPV6_HEADER_SIZE and frame[at] >> 4 == 6
    else:
        return 0
    return at if is_whole else 0
