"""Classic BPF programs, which the kernel runs for each datagram or frame that arrives at a socket.

Attaching them needs no privilege.
"""

from __future__ import annotations

import array
import socket
import struct

from overlay.linux import INSTRUCTION, RETURN

# Specification: linux/filter.h, linux/bpf_common.h, asm-generic/socket.h
SO_ATTACH_FILTER = 26
PROGRAM = struct.Struct("@HP")  # number of instructions, their address
# From an offset in the data that the socket gets; data too short for it ends the program with 0
LOAD_BYTE = 0x30
LOAD_HALF = 0x28
LOAD_BYTE_BEHIND = 0x50  # from an offset after the size that LOAD_HEADER_SIZE has loaded
LOAD_HEADER_SIZE = 0xB1  # of the IPv4 header at an offset
LOAD_SIZE = 0x80  # of the payload; of all segments together if several were merged
SHIFT_RIGHT = 0x74
AND, ADD = 0x54, 0x04  # with a constant
RETURN_SUM = 0x16  # the computed value
JUMP_IF_GREATER = 0x25
NETWORK_HEADER = (1 << 32) - 0x100000  # added to an offset: from the IP header on, wherever the socket starts

# As a filter, a program returns how many bytes of a datagram to keep.
EVERYTHING = 0xFFFFFFFF


def program(*instructions: tuple[int, int, int, int]) -> array.array[int]:
    """Return *instructions*, each as in INSTRUCTION, in the form that attach() takes."""
    return array.array("Q", b"".join(INSTRUCTION.pack(*each) for each in instructions))


NOTHING = program((RETURN, 0, 0, 0))


def attach(to: socket.socket, option: int, instructions: array.array[int]) -> None:
    """Make the kernel run *instructions* for everything that arrives at a socket, by an *option* of SOL_SOCKET.  Raises
    OSError.
    """
    address, count = instructions.buffer_info()
    to.setsockopt(socket.SOL_SOCKET, option, PROGRAM.pack(count, address))
