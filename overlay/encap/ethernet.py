"""Packets of a tun in Ethernet frames, which begin and end at the agents, behind the header of an encapsulation.

The frame around a packet goes from one end's Ethernet address to the other's.  A frame to another address is refused,
and so is a broadcast or multicast, unless it asks for the address of this node: that is answered, so that the kernel's
own devices work with ARP and neighbour discovery as well as without.  The source address of a frame is ignored: it is
not a secret, and anyone who can send from the peer's underlay address can forge it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.encap.encapsulation import Clear, Ends, Frames, Layout, Stripped
from overlay.errors import PacketError
from overlay.wire.ethernet import (
    ETHERNET,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_TAGS,
    GROUP,
)
from overlay.wire.ip import packet_length
from overlay.wire.neighbours import Question, is_discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overlay.wire.ip import Buffer

# Ours
SENDERS = 16  # source ports: enough for the queues and paths over which a network spreads flows
_VERSIONS = {ETHERTYPE_IPV4: 4, ETHERTYPE_IPV6: 6}


def clear(
    header: Callable[[Ends], bytes],
    find: Callable[[Buffer], tuple[int, int]],
    mismatch: str,
    layout: Layout,
) -> Clear:
    """Return how payloads of frames are made and read with *header* and *find*, see Frames.

    *find* accepts only payloads in which a whole Ethernet header follows.
    """
    inside = _Inside(header, find)
    frames = Frames(header, find, inside.admit, inside.question, inside.answer)
    return Clear(inside.prefix, inside.strip, mismatch, frames, layout=layout)


class _Inside:
    """The packets in the frames of one encapsulation."""

    __slots__ = ("_find", "_header")

    def __init__(self, header: Callable[[Ends], bytes], find: Callable[[Buffer], tuple[int, int]]) -> None:
        self._header, self._find = header, find

    def prefix(self, ends: Ends) -> Mapping[int, bytes]:
        """Return everything before a packet to the far end, by its IP version."""
        header = self._header(ends)
        return {
            version: header + ETHERNET.pack(ends.mac, ends.own_mac, kind)
            for kind, version in _VERSIONS.items()
        }

    def strip(self, payload: Buffer) -> Stripped:
        """Return where the packet in *payload* begins and ends.  Raises PacketError, and nothing else, for any bytes.

        The reason ``neighbour`` means that question() may find a question in it, for this node or not.
        """
        frame, identifier = self._find(payload)
        start = frame + ETHERNET.size
        kind = payload[start - 2] << 8 | payload[start - 1]
        version = _VERSIONS.get(kind)
        if version is None:
            if kind == ETHERTYPE_ARP:
                raise PacketError("neighbour")
            raise PacketError("vlan" if kind in ETHERTYPE_TAGS else "ethertype")
        packet = payload[start:]
        length = packet_length(packet)
        if packet[0] >> 4 != version:
            raise PacketError("inner_version")
        if version == 6 and is_discovery(packet):
            raise PacketError("neighbour")
        return Stripped(start, start + length, identifier)

    def admit(self, payload: Buffer, ends: Ends) -> None:
        """Check that the frame in *payload*, which strip() accepted, is for this end.  Raises PacketError if not."""
        start, _ = self._find(payload)
        destination = payload[start : start + 6]
        if destination != ends.own_mac:
            raise PacketError("multicast" if destination[0] & GROUP else "mac")

    def question(self, payload: Buffer) -> tuple[int, Question] | None:
        """Return the tunnel of *payload* and the question for an Ethernet address in it; None if there is none."""
        try:
            start, identifier = self._find(payload)
            return identifier, Question.parse(payload[start:])
        except PacketError:
            return None

    def answer(self, question: Question, ends: Ends) -> bytes:
        """Return the payload that answers that the target is at this end."""
        return self._header(ends) + question.answer(ends.own_mac)
