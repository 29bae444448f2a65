"""VXLAN (RFC 7348) with a tun: Ethernet frames in UDP, which begin and end at the agents.

The frame around a packet goes from one end's Ethernet address to the other's.  A frame to another address is refused,
and so is one to many, unless it asks where an address of this node is: that is answered, so that a kernel's VXLAN
device finds its way with ARP and neighbour discovery or without.  Who a frame says that it is from is not looked at:
it is no secret, and whoever can send from the peer's underlay address can write it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Encapsulation, Ends, Frames, Stripped
from overlay.errors import PacketError
from overlay.wire.ip import packet_length
from overlay.wire.neighbours import (
    ETHERNET,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    Question,
    is_discovery,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.wire.ip import Buffer

# Specification (RFC 7348 section 5)
# - 1 byte flags, 3 bytes reserved, 3 bytes VXLAN network identifier, 1 byte reserved; then the frame
HEADER = struct.Struct("!B3xI")
HAS_VNI = 0x08  # the one flag; what is reserved is zero when sent, and ignored
PREFIX_SIZE = HEADER.size + ETHERNET.size  # 22
ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN = 0x8100, 0x88A8  # IEEE 802.1Q; not inside VXLAN (section 6.1)
GROUP = 0x01  # bit of an Ethernet address' first byte: that of many

# Ours
SENDERS = 16  # source ports: enough for the queues and paths that a network spreads flows over by them
_VERSIONS = {ETHERTYPE_IPV4: 4, ETHERTYPE_IPV6: 6}


def header(ends: Ends) -> bytes:
    """Return the VXLAN header before each frame."""
    return HEADER.pack(HAS_VNI, (ends.identifier or 0) << 8)


def find(payload: Buffer) -> tuple[int, int]:
    """Return where the frame in *payload* begins, and its network identifier.

    Raises PacketError, and nothing else, for any bytes.
    """
    if len(payload) < PREFIX_SIZE:
        raise PacketError("vxlan_short")
    flags, word = HEADER.unpack_from(payload)
    if not flags & HAS_VNI:
        raise PacketError("vxlan_flags")
    return HEADER.size, word >> 8


def prefix(ends: Ends) -> Mapping[int, bytes]:
    """Return VXLAN and Ethernet header of a packet to the far end, by its IP version."""
    before = header(ends)
    return {
        version: before + ETHERNET.pack(ends.mac, ends.own_mac, kind) for kind, version in _VERSIONS.items()
    }


def strip(payload: Buffer) -> Stripped:
    """Return where the packet in *payload* begins and ends.  Raises PacketError, and nothing else, for any bytes.

    ``neighbour`` is what find_question() may find a question in, whether of this node or not.
    """
    _, vni = find(payload)
    kind = payload[PREFIX_SIZE - 2] << 8 | payload[PREFIX_SIZE - 1]
    version = _VERSIONS.get(kind)
    if version is None:
        if kind == ETHERTYPE_ARP:
            raise PacketError("neighbour")
        raise PacketError("vlan" if kind in {ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN} else "ethertype")
    packet = payload[PREFIX_SIZE:]
    length = packet_length(packet)
    if packet[0] >> 4 != version:
        raise PacketError("inner_version")
    if version == 6 and is_discovery(packet):
        raise PacketError("neighbour")
    return Stripped(PREFIX_SIZE, PREFIX_SIZE + length, vni)


def admit(payload: Buffer, ends: Ends) -> None:
    """Return if the frame in *payload*, which strip() has taken, is for this end.  Raises PacketError if not."""
    destination = payload[HEADER.size : HEADER.size + 6]
    if destination != ends.own_mac:
        raise PacketError("multicast" if destination[0] & GROUP else "mac")


def find_question(payload: Buffer) -> tuple[int, Question] | None:
    """Return the tunnel of *payload* and the question for an Ethernet address in it; None if there is none."""
    try:
        start, vni = find(payload)
        return vni, Question.parse(payload[start:])
    except PacketError:
        return None


def build_answer(question: Question, ends: Ends) -> bytes:
    """Return the payload that tells who asked that the target is at this end."""
    return header(ends) + question.answer(ends.own_mac)


ENCAPSULATION = Encapsulation(
    "vxlan",
    {4: 20 + 8, 6: 40 + 8},
    Clear(
        prefix,
        strip,
        mismatch="vni",
        frames=Frames(header, find, admit, find_question, build_answer),
    ),
    senders=SENDERS,
)
