"""What the kernel does with datagrams before they wait to be read: handshake messages apart, and nothing for senders.

Handshake messages get a queue of their own, so that no packet waits behind a storm of them; anything that does not
begin like a message goes there too, and is dropped. UDP sockets share one address and port as a group (SO_REUSEPORT),
and a program of classic BPF, which the kernel runs for each datagram, chooses between them by the type of the message:
the second socket of the group gets handshakes and invalid datagrams, the first transport messages and fragments of
units.
 With several lanes it shares these with one for each of the others behind the second, by the lowest byte of the
 receiver index: the messages of one session are for one lane.
A program may be attached without any privilege.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.host.bpf import (
    ADD,
    AND,
    JUMP_IF_GREATER,
    LOAD_BYTE,
    LOAD_SIZE,
    NOTHING,
    RETURN_SUM,
    SHIFT_RIGHT,
    SO_ATTACH_FILTER,
    attach,
    program,
)
from overlay.linux import JUMP_IF_EQUAL, LOAD_WORD, RETURN
from overlay.wire.bulk import FRAGMENT_HEADER_SIZE, TYPE_FRAGMENT
from overlay.wire.messages import TYPE_COOKIE_REPLY, TYPE_INITIATION, TYPE_RESPONSE, TYPE_TRANSPORT

if TYPE_CHECKING:
    import array
    import socket

# Specification: asm-generic/socket.h
SO_ATTACH_REUSEPORT_CBPF = 51  # since Linux 4.5
UDP_HEADER = 8

INDEX_OFFSET = 4  # of the lowest byte
MARK_OFFSET = 7  # of the highest byte of the receiver index, in transport messages and fragments alike

# Ours
INDEX_MARK = 1 + os.urandom(1)[0] % 255
"""The highest byte of the indices of this process's sessions."""

ORDINARY, HANDSHAKES = 0, 1  # places in the group, in the order in which its sockets were bound


def _first_word(kind: int) -> int:
    """Return the first four bytes of messages of *kind*, a type and three zeros, as LOAD_WORD has them."""
    return kind << 24


_TYPES = (TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY)
_HANDSHAKES_ALONE = program(
    (LOAD_WORD, 0, 0, UDP_HEADER),
    *((JUMP_IF_EQUAL, len(_TYPES) - number, 0, _first_word(kind)) for number, kind in enumerate(_TYPES)),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, 0xFFFFFFFF),
)


def separate_handshakes(group: socket.socket, mark: int = INDEX_MARK, lanes: int = 1) -> bool:
    """Have handshake messages go to the second socket of *group*, given by any of them; return whether they will.

    What is of sessions goes to the first and those behind the second, together *lanes*, a power of two.

    What is none of ours goes there too, to be dropped: for it is seldom that a handshake message is lost.  That is also
    what is for a session whose index has another *mark* as its highest byte;
    somebody who cannot see ours must guess it.
    """
    sorting = program(
        (LOAD_SIZE, 0, 0, 0),
        (JUMP_IF_GREATER, 0, 6, FRAGMENT_HEADER_SIZE),  # the smallest, with one byte of a unit, has more
        (LOAD_WORD, 0, 0, 0),
        (JUMP_IF_EQUAL, 2, 0, _first_word(TYPE_TRANSPORT)),
        (SHIFT_RIGHT, 0, 0, 24),
        (JUMP_IF_EQUAL, 0, 2, TYPE_FRAGMENT),
        (LOAD_BYTE, 0, 0, MARK_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, mark),
        (RETURN, 0, 0, HANDSHAKES),
        (LOAD_BYTE, 0, 0, INDEX_OFFSET),
        (AND, 0, 0, lanes - 1),
        (JUMP_IF_EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ORDINARY),
        (ADD, 0, 0, HANDSHAKES),
        (RETURN_SUM, 0, 0, 0),
    )
    return _is_taken(group, SO_ATTACH_REUSEPORT_CBPF, sorting)


def take_handshakes_only(handshakes: socket.socket) -> bool:
    """Have the kernel drop everything but handshake messages at *handshakes*; return whether it will.

    A flood of it then costs no turn of the forwarder.  Of merged datagrams the first tells for all.
    """
    return _is_taken(handshakes, SO_ATTACH_FILTER, _HANDSHAKES_ALONE)


def take_nothing(sender: socket.socket) -> None:
    """Have the kernel drop whatever comes to *sender*, which nobody reads.  Raises OSError."""
    attach(sender, SO_ATTACH_FILTER, NOTHING)


def _is_taken(udp: socket.socket, option: int, instructions: array.array[int]) -> bool:
    """Attach *instructions*; return whether the kernel takes them."""
    try:
        attach(udp, option, instructions)
    except OSError:
        return False
    return True
