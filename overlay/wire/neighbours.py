"""Questions for the Ethernet address of an IP address, and their answers: ARP (RFC 826)
and neighbour discovery (RFC 4861).

Numbers are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from overlay.errors import PacketError
from overlay.wire.ethernet import (
    ARP,
    ARP_ETHERNET_IPV4,
    ARP_REPLY,
    ARP_REQUEST,
    ETHERNET,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV6,
    ND_ADVERTISEMENT,
    ND_HOP_LIMIT,
    ND_SOLICITATION,
    ND_SOURCE_LINK_ADDRESS,
    ND_TARGET_LINK_ADDRESS,
)
from overlay.wire.icmp import IPV6_HEADER
from overlay.wire.ip import IPV6_HEADER_SIZE, PROTOCOL_ICMPV6, checksum, packet_length, pseudo_header_sum

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification
# Neighbour solicitation and advertisement: 1 byte type, 1 byte code, 2 bytes checksum, 4 bytes flags, 16 bytes target,
# then options: 1 byte type, 1 byte length in units of 8 bytes, the rest
NEIGHBOUR = struct.Struct("!BBHI16s")
ROUTER, SOLICITED, OVERRIDE = 1 << 31, 1 << 30, 1 << 29
ALL_NODES, ALL_NODES_MAC = bytes.fromhex("ff02000000000000 0000000000000001"), bytes.fromhex("333300000001")
# RFC 4291 section 2.7.1, RFC 2464 section 7: before the last 3 bytes of the address
SOLICITED_NODE, SOLICITED_NODE_MAC = (
    bytes.fromhex("ff02000000000000 00000001ff"),
    bytes.fromhex("3333ff"),
)
BROADCAST = bytes.fromhex("ffffffffffff")


def is_discovery(packet: Buffer) -> bool:
    """Return whether an IPv6 *packet*, with a whole header, is a neighbour solicitation or advertisement."""
    return (
        packet[6] == PROTOCOL_ICMPV6
        and len(packet) > IPV6_HEADER_SIZE
        and packet[IPV6_HEADER_SIZE] in {ND_SOLICITATION, ND_ADVERTISEMENT}
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A question of *source* for the Ethernet address of *target*, both of 4 or of 16 bytes.

    *mac* is the source of the frame, *asked* its destination: one address or a group.
    """

    source: bytes
    target: bytes
    mac: bytes
    asked: bytes

    @classmethod
    def parse(cls, frame: Buffer) -> Self:
        """Read an Ethernet frame.

        Raises PacketError ``neighbour``, and nothing else, for a frame that is not a question: answers, and tests
        whether an address is free, whose sender has no address of its own yet (RFC 5227, RFC 4862 section 5.4).
        """
        if len(frame) < ETHERNET.size:
            raise PacketError("neighbour")
        asked, mac, kind = ETHERNET.unpack_from(frame)
        rest = frame[ETHERNET.size :]
        if kind == ETHERTYPE_ARP and len(rest) >= ARP.size:
            *form, operation, _, source, _, target = ARP.unpack_from(rest)
            if tuple(form) == ARP_ETHERNET_IPV4 and operation == ARP_REQUEST and any(source):
                return cls(source, target, mac, asked)
        if kind == ETHERTYPE_IPV6:
            source, target, _ = _discovered(rest, ND_SOLICITATION)
            if not any(source):
                raise PacketError("neighbour")
            return cls(source, target, mac, asked)
        raise PacketError("neighbour")

    def answer(self, mac: bytes) -> bytes:
        """Return the frame that tells the asker that the target is at *mac*."""
        if len(self.target) == 4:
            body = ARP.pack(*ARP_ETHERNET_IPV4, ARP_REPLY, mac, self.target, self.mac, self.source)
            return ETHERNET.pack(self.mac, mac, ETHERTYPE_ARP) + body
        message = NEIGHBOUR.pack(ND_ADVERTISEMENT, 0, 0, SOLICITED | OVERRIDE, self.target)
        message += bytes((ND_TARGET_LINK_ADDRESS, 1)) + mac
        return _discovery(message, self.target, self.source, self.mac, mac)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that *address*, of 4 or 16 bytes, is at the Ethernet address *mac*, solicited or not."""

    address: bytes
    mac: bytes

    @classmethod
    def parse(cls, frame: Buffer) -> Self:
        """Read an Ethernet frame.

        In ARP, requests claim their sender's address just as replies do: all hosts that receive them believe both.  In
        neighbour discovery, advertisements claim their target.  Raises PacketError ``neighbour``, and nothing else, for
        a frame without a claim, or an invalid one (RFC 4861 section 7.1.2).
        """
        if len(frame) < ETHERNET.size:
            raise PacketError("neighbour")
        _, mac, kind = ETHERNET.unpack_from(frame)
        rest = frame[ETHERNET.size :]
        if kind == ETHERTYPE_ARP and len(rest) >= ARP.size:
            *form, operation, claimed, source, _, _ = ARP.unpack_from(rest)
            if tuple(form) == ARP_ETHERNET_IPV4 and operation in {ARP_REQUEST, ARP_REPLY} and any(source):
                return cls(source, claimed)
        if kind == ETHERTYPE_IPV6:
            _, target, options = _discovered(rest, ND_ADVERTISEMENT)
            return cls(target, _link_address(options) or mac)
        raise PacketError("neighbour")


def question(address: bytes, source: bytes, mac: bytes) -> bytes:
    """Return the frame with which *source* at *mac* asks all hosts on a link for *address*; both are of one family."""
    if len(address) == 4:
        body = ARP.pack(*ARP_ETHERNET_IPV4, ARP_REQUEST, mac, source, bytes(6), address)
        return ETHERNET.pack(BROADCAST, mac, ETHERTYPE_ARP) + body
    message = NEIGHBOUR.pack(ND_SOLICITATION, 0, 0, 0, address) + bytes((ND_SOURCE_LINK_ADDRESS, 1)) + mac
    return _discovery(message, source, SOLICITED_NODE + address[13:], SOLICITED_NODE_MAC + address[13:], mac)


def announcement(address: bytes, mac: bytes, *, is_router: bool = True) -> bytes:
    """Return the unsolicited frame that tells all hosts on a link that *address*, of 4 or 16 bytes, is at *mac*.

    It is a gratuitous ARP request (RFC 5227 section 3), or an unsolicited advertisement of neighbour discovery (RFC
    4861 section 7.2.6), with *is_router* for its sender.
    """
    if len(address) == 4:
        body = ARP.pack(*ARP_ETHERNET_IPV4, ARP_REQUEST, mac, address, bytes(6), address)
        return ETHERNET.pack(BROADCAST, mac, ETHERTYPE_ARP) + body
    flags = OVERRIDE | (ROUTER if is_router else 0)
    message = (
        NEIGHBOUR.pack(ND_ADVERTISEMENT, 0, 0, flags, address) + bytes((ND_TARGET_LINK_ADDRESS, 1)) + mac
    )
    return _discovery(message, address, ALL_NODES, ALL_NODES_MAC, mac)


def _discovery(message: bytes, source: bytes, to: bytes, to_mac: bytes, mac: bytes) -> bytes:
    """Return the frame with *message*, whose checksum is still zero, from *source* at *mac*."""
    start = pseudo_header_sum(source, to, PROTOCOL_ICMPV6, len(message))
    message = message[:2] + checksum(message, start).to_bytes(2, "big") + message[4:]
    header = IPV6_HEADER.pack(6 << 28, len(message), PROTOCOL_ICMPV6, ND_HOP_LIMIT, source, to)
    return ETHERNET.pack(to_mac, mac, ETHERTYPE_IPV6) + header + message


def _discovered(packet: Buffer, wanted: int) -> tuple[bytes, bytes, Buffer]:
    """Return source, target and options of a valid message of the type *wanted* (RFC 4861 section 7.1)."""
    try:
        packet = packet[: packet_length(packet)]
    except PacketError:
        raise PacketError("neighbour") from None
    message = packet[IPV6_HEADER_SIZE:]
    if packet[0] >> 4 != 6 or packet[6] != PROTOCOL_ICMPV6 or packet[7] != ND_HOP_LIMIT:
        raise PacketError("neighbour")
    if len(message) < NEIGHBOUR.size:
        raise PacketError("neighbour")
    source, destination = bytes(packet[8:24]), bytes(packet[24:40])
    kind, code, _, _, target = NEIGHBOUR.unpack_from(message)
    start = pseudo_header_sum(source, destination, PROTOCOL_ICMPV6, len(message))
    if (kind, code) != (wanted, 0) or checksum(message, start) or target[0] == 0xFF:
        raise PacketError("neighbour")
    if source[0] == 0xFF or not _has_whole_options(message[NEIGHBOUR.size :]):
        raise PacketError("neighbour")
    return source, target, message[NEIGHBOUR.size :]


def _link_address(options: Buffer) -> bytes | None:
    """Return the Ethernet address in the *options* of an advertisement, which are whole; None if they have none."""
    at = 0
    while at < len(options):
        if options[at] == ND_TARGET_LINK_ADDRESS and options[at + 1] == 1:
            return bytes(options[at + 2 : at + 8])
        at += options[at + 1] * 8
    return None


def _has_whole_options(options: Buffer) -> bool:
    at = 0
    while at + 1 < len(options):
        if not options[at + 1]:
            return False
        at += options[at + 1] * 8
    return at == len(options)
