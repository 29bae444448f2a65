"""What the kernel does with datagrams before they wait to be read: handshake messages apart, and nothing for senders.

Handshake messages get a queue of their own, so that no packet waits behind a storm of them.
Two UDP sockets share one address and port as a group (SO_REUSEPORT), and a program of classic BPF, which the kernel
runs for each datagram, chooses between them by the type of the message: the first socket of the group gets all but
the handshake messages, the second these.  A program may be attached without any privilege.
"""

from __future__ import annotations

import array
import socket
import struct

from overlay.wire.messages import TYPE_COOKIE_REPLY, TYPE_INITIATION

# Specification: linux/filter.h, linux/bpf_common.h, asm-generic/socket.h
SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT_CBPF = 51  # since Linux 4.5
INSTRUCTION = struct.Struct("=HBBI")  # operation, jumps if true and if false, operand
PROGRAM = struct.Struct("@HP")  # number of instructions, their address
LOAD_BYTE = 0x30  # from an offset in the UDP payload; a payload that has no such byte ends the program with 0
SUBTRACT = 0x14
JUMP_IF_GREATER = 0x25
RETURN = 0x06

ORDINARY, HANDSHAKES = 0, 1  # places in the group, in the order in which its sockets were bound

# As a filter, what a program returns is how much of a datagram is kept.
_NOTHING = array.array("Q", INSTRUCTION.pack(RETURN, 0, 0, 0))

# The type is four bytes, little endian; of messages that are none the inbound path takes care on either socket.
_INSTRUCTIONS = array.array(
    "Q",
    b"".join(
        INSTRUCTION.pack(*each)
        for each in (
            (LOAD_BYTE, 0, 0, 0),
            (SUBTRACT, 0, 0, TYPE_INITIATION),  # unsigned: 0 becomes the largest number
            (JUMP_IF_GREATER, 1, 0, TYPE_COOKIE_REPLY - TYPE_INITIATION),
            (RETURN, 0, 0, HANDSHAKES),
            (RETURN, 0, 0, ORDINARY),
        )
    ),
)


def steer(group: socket.socket) -> bool:
    """Have handshake messages go to the second socket of *group*, given by any of its two; return whether they will."""
    address, count = _INSTRUCTIONS.buffer_info()
    try:
        group.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, PROGRAM.pack(count, address))
    except OSError:
        return False
    return True


def refuse_all(sender: socket.socket) -> None:
    """Have the kernel drop whatever comes to *sender*, which nobody reads."""
    address, count = _NOTHING.buffer_info()
    sender.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, PROGRAM.pack(count, address))
