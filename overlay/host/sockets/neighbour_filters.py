"""Filters that pass only the ARP or neighbour discovery messages on a link that are about certain addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.host.sockets.bpf import EVERYTHING, LOAD_BYTE, LOAD_HALF, program
from overlay.linux import JUMP_IF_EQUAL, LOAD_WORD, RETURN
from overlay.wire.ethernet import (
    ARP_REQUEST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV6,
    ND_ADVERTISEMENT,
    ND_SOLICITATION,
)
from overlay.wire.ip import PROTOCOL_ICMPV6

if TYPE_CHECKING:
    import array
    from collections.abc import Collection

# Specification: linux/if_packet.h
PACKET_OTHERHOST, PACKET_OUTGOING = 3, 4
ETHERTYPES = {4: ETHERTYPE_ARP, 6: ETHERTYPE_IPV6}  # by IP version, the protocol that a socket is bound to
# Offsets of fields in the frame
ARP_OPERATION_OFFSET, ARP_SOURCE_OFFSET, ARP_TARGET_OFFSET = 20, 28, 38
ND_NEXT_HEADER_OFFSET, ND_TYPE_OFFSET, ND_TARGET_OFFSET = 20, 54, 62

# Ours
MOST_INSTRUCTIONS = (
    512  # with more, the process selects the frames: the kernel would lend no memory for a longer program
)

_Instruction = tuple[int, int, int, int]
_DROP, _KEEP = (RETURN, 0, 0, 0), (RETURN, 0, 0, EVERYTHING)


def questions_for(version: int, addresses: Collection[bytes]) -> array.array[int]:
    """Return a program that passes requests for *addresses*."""
    if version == 4:
        head = [(LOAD_HALF, 0, 0, ARP_OPERATION_OFFSET), (JUMP_IF_EQUAL, 1, 0, ARP_REQUEST), _DROP]
        return _about(addresses, head, ARP_TARGET_OFFSET)
    return _about(addresses, _discovery(ND_SOLICITATION), ND_TARGET_OFFSET)


def claims_of(version: int, addresses: Collection[bytes]) -> array.array[int]:
    """Return a program that passes claims of *addresses*: ARP from them, and advertisements of them."""
    if version == 4:
        return _about(addresses, [], ARP_SOURCE_OFFSET)
    return _about(addresses, _discovery(ND_ADVERTISEMENT), ND_TARGET_OFFSET)


def _discovery(kind: int) -> list[_Instruction]:
    """Return the steps that drop everything but neighbour discovery messages of this *kind*."""
    return [
        (LOAD_BYTE, 0, 0, ND_NEXT_HEADER_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, PROTOCOL_ICMPV6),
        _DROP,
        (LOAD_BYTE, 0, 0, ND_TYPE_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, kind),
        _DROP,
    ]


def _about(addresses: Collection[bytes], head: list[_Instruction], at: int) -> array.array[int]:
    """Return a program that begins with *head*, and keeps frames that have one of *addresses* at the offset *at*."""
    body = [step for address in sorted(addresses) for step in _is_address(address, at)]
    if len(body) > MOST_INSTRUCTIONS:
        return program(*head, _KEEP)
    return program(*head, *body, _DROP)


def _is_address(address: bytes, at: int) -> list[_Instruction]:
    """Return the steps that keep a frame with *address* at the offset *at*, and otherwise go on after the last step."""
    steps: list[_Instruction] = []
    for offset in range(0, len(address), 4):
        left = 2 * (len(address) - offset) // 4 - 1  # steps from behind this comparison to the end
        word = int.from_bytes(address[offset : offset + 4], "big")
        steps += [(LOAD_WORD, 0, 0, at + offset), (JUMP_IF_EQUAL, 0, left, word)]
    return [*steps, _KEEP]
