"""What the kernel does with datagrams before they are queued: handshake messages get a queue of their own.

No packet then waits behind a storm of handshakes.  Anything that does not begin like a message goes to that queue too,
and is dropped.  UDP sockets share one address and port as a group (SO_REUSEPORT), and a program of classic BPF, which
the kernel runs for each datagram, chooses between them by the type of the message: the second socket of the group gets
handshakes and invalid datagrams, the first transport messages and fragments of units.

With several lanes, there is one more socket for each further lane, and the lowest byte of the receiver index chooses:
all messages of one session reach one lane.  Attaching a program needs no privilege.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.host.sockets.bpf import (
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
MARK_OFFSET = 7  # of the highest byte of the receiver index, in transport messages and in fragments

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
    """Direct handshake messages to the second socket of *group*, of which any socket is given; return whether this
    works.

    Messages of sessions go to the first socket and those behind the second, together *lanes*, a power of two.

    Anything else goes to the second socket, too, and is dropped there, because losing a handshake message does little
    harm.  This includes messages for a session whose index does not have *mark* as its highest byte, which an attacker
    who cannot see our messages must guess.
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
    """Make the kernel drop everything except handshake messages at *handshakes*; return whether this works.

    A flood then does not cost the forwarder a turn.  The first of merged datagrams decides for all of them.
    """
    return _is_taken(handshakes, SO_ATTACH_FILTER, _HANDSHAKES_ALONE)


def take_nothing(sender: socket.socket) -> None:
    """Make the kernel drop everything that arrives at *sender*, which is never read.  Raises OSError."""
    attach(sender, SO_ATTACH_FILTER, NOTHING)


def _is_taken(udp: socket.socket, option: int, instructions: array.array[int]) -> bool:
    """Attach *instructions*; return whether the kernel accepts them."""
    try:
        attach(udp, option, instructions)
    except OSError:
        return False
    return True
