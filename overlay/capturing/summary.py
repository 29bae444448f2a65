"""One line about a packet.  It consists of numbers and fixed words, so any terminal can show it."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from overlay.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6
from overlay.wire.ip import (
    EXTENSIONS,
    FRAGMENT,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)

if TYPE_CHECKING:
    from overlay.wire.ip import Buffer

# Specification (RFC 9293 section 3.1; tcpdump's letters)
_FLAGS = (
    (0x02, "S"),
    (0x01, "F"),
    (0x04, "R"),
    (0x08, "P"),
    (0x20, "U"),
    (0x40, "E"),
    (0x80, "W"),
    (0x10, "."),
)
_NAMES = {PROTOCOL_TCP: "TCP", PROTOCOL_UDP: "UDP", PROTOCOL_SCTP: "SCTP"}
_ICMP = {
    PROTOCOL_ICMP: {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"},
    PROTOCOL_ICMPV6: {
        1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply",
        133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation",
        136: "neighbor advertisement",
    },
}  # fmt: skip
_PORTS = struct.Struct(">HH").unpack_from
_NUMBERS = struct.Struct(">IIBB").unpack_from

# Ours
MOST_EXTENSIONS = 8


def summarize(packet: Buffer, length: int) -> str:
    """Return a description of an IP packet of *length* bytes, the first of which are *packet*."""
    version = packet[0] >> 4 if len(packet) else 0
    if version == 4 and len(packet) >= 20:
        header, protocol = (packet[0] & 15) * 4, packet[9]
        offset = (packet[6] << 8 | packet[7]) & 0x1FFF
        ends = str(ip_address(bytes(packet[12:16]))), str(ip_address(bytes(packet[16:20])))
    elif version == 6 and len(packet) >= 40:
        header, protocol, offset = _behind_extensions(packet)
        ends = str(ip_address(bytes(packet[8:24]))), str(ip_address(bytes(packet[24:40])))
    else:
        return f"not an IP packet, length {length}"
    if offset:
        return f"{ends[0]} > {ends[1]}: fragment at {offset * 8}, length {length}"
    return _upper(packet[header:], protocol, ends, length - header)


def summarize_frame(frame: Buffer, length: int) -> str:
    """Return a description of an Ethernet frame of *length* bytes."""
    if len(frame) < 14:
        return f"shorter than an Ethernet header, length {length}"
    kind = frame[12] << 8 | frame[13]
    if kind in {ETHERTYPE_IPV4, ETHERTYPE_IPV6}:
        return summarize(frame[14:], length - 14)
    if kind == ETHERTYPE_ARP and len(frame) >= 42:
        asks, asked = (str(ip_address(bytes(frame[at : at + 4]))) for at in (28, 38))
        is_request = frame[21] == 1
        return (
            f"ARP, who has {asked}, tell {asks}" if is_request else f"ARP, {asks} is at {_mac(frame[22:28])}"
        )
    return f"{_mac(frame[6:12])} > {_mac(frame[:6])}: ethertype 0x{kind:04x}, length {length}"


def _behind_extensions(packet: Buffer) -> tuple[int, int, int]:
    """Return where the upper layer of an IPv6 packet begins, its protocol, and the offset of a fragment."""
    at, protocol = 40, packet[6]
    for _ in range(MOST_EXTENSIONS):
        if protocol not in EXTENSIONS or len(packet) < at + 8:
            break
        if protocol == FRAGMENT:
            offset = (packet[at + 2] << 8 | packet[at + 3]) >> 3
            if offset:
                return at, protocol, offset
            at, protocol = at + 8, packet[at]
        else:
            at, protocol = at + 8 + packet[at + 1] * 8, packet[at]
    return at, protocol, 0


def _upper(data: Buffer, protocol: int, ends: tuple[str, str], length: int) -> str:
    source, destination = ends
    if protocol in _NAMES and len(data) >= 4:
        ports = _PORTS(data)
        arrow = f"{source}.{ports[0]} > {destination}.{ports[1]}"
        if protocol == PROTOCOL_TCP and len(data) >= 14:
            number, answered, header, flags = _NUMBERS(data, 4)
            size = max(0, length - (header >> 4) * 4)
            letters = "".join(letter for bit, letter in _FLAGS if flags & bit) or "none"
            answer = f", ack {answered}" if flags & 0x10 else ""
            return f"{arrow}: TCP [{letters}], seq {number}{answer}, length {size}"
        return f"{arrow}: {_NAMES[protocol]}, length {max(0, length - 8)}"
    if protocol in _ICMP and len(data) >= 2:
        name = _ICMP[protocol].get(data[0], f"type {data[0]}")
        kind = "ICMP" if protocol == PROTOCOL_ICMP else "ICMP6"
        return f"{source} > {destination}: {kind} {name}, length {length}"
    return f"{source} > {destination}: protocol {protocol}, length {length}"


def _mac(address: Buffer) -> str:
    return ":".join(f"{each:02x}" for each in address)
