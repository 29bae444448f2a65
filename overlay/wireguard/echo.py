"""Echo requests and their answers (RFC 792, RFC 4443), to test a tunnel with."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

from overlay.errors import PacketError
from overlay.wire.icmp import ECHO_HEADER, IPV6_HEADER, Echo, in_ipv4
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_ICMP, PROTOCOL_ICMPV6, packet_length

if TYPE_CHECKING:
    from ipaddress import IPv6Address

# Ours
HOP_LIMIT = 64
BROADCAST = IPv4Address("255.255.255.255")
LARGEST_DATA = 65_535 - IPV6_HEADER_SIZE - ECHO_HEADER.size
FRAGMENTED = 0x3FFF  # more fragments, or an offset, in an IPv4 header


def echo_request(
    source: str | IPv4Address | IPv6Address,
    destination: str | IPv4Address | IPv6Address,
    data: bytes = b"",
    *,
    identifier: int = 0,
    sequence: int = 0,
) -> bytes:
    """Return the IP packet that asks *destination* to return *data* to *source*, as ping does.

    *identifier* and *sequence* are from 0 to 65535.  Raises ValueError unless they are, both addresses have the same
    IP version, and the packet has at most 65,535 bytes.
    """
    one, other = ip_address(source), ip_address(destination)
    if one.version != other.version:
        raise ValueError(f"{one} and {other} do not have the same IP version")
    if not (0 <= identifier <= 0xFFFF and 0 <= sequence <= 0xFFFF):
        raise ValueError(f"{identifier} and {sequence} are not both from 0 to 65535")
    if len(data) > LARGEST_DATA:
        raise ValueError(f"{len(data)} bytes are more than the {LARGEST_DATA} that a packet has room for")
    return _packet(Echo(is_reply=False, identifier=identifier, sequence=sequence, data=data), one, other)


def echo_reply(packet: bytes) -> bytes | None:
    """Return the packet that answers *packet*; None unless that is an echo request to and from a single host, without
    options and not a fragment.

    Raises nothing for any *packet*.
    """
    try:
        packet = packet[: packet_length(packet)]
        if packet[0] == 0x45 and packet[9] == PROTOCOL_ICMP:
            echo = Echo.parse(packet[IPV4_HEADER_SIZE:], 4)
            source, destination = packet[12:16], packet[16:20]
            is_whole = not int.from_bytes(packet[6:8], "big") & FRAGMENTED
        elif packet[0] >> 4 == 6 and packet[6] == PROTOCOL_ICMPV6:
            echo = Echo.parse(packet[IPV6_HEADER_SIZE:], 6)
            source, destination, is_whole = packet[8:24], packet[24:40], True
        else:
            return None
    except PacketError:
        return None
    if echo.is_reply or not is_whole:
        return None
    asked, asker = ip_address(destination), ip_address(source)
    if any(each.is_multicast or each.is_unspecified or each == BROADCAST for each in (asked, asker)):
        return None
    return _packet(replace(echo, is_reply=True), asked, asker)


def _packet(echo: Echo, source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address) -> bytes:
    message = echo.build(source, destination)
    if source.version == 4:
        return in_ipv4(message, source.packed, destination.packed)
    size = len(message)
    return (
        IPV6_HEADER.pack(6 << 28, size, PROTOCOL_ICMPV6, HOP_LIMIT, source.packed, destination.packed)
        + message
    )
