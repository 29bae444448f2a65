"""The receiving end of the socket pair over which a forwarder reports dropped packets (overlay/wire/dropped.py).

The kernel keeps messages apart and in order, stamps each with its time, runs the filter, and does not block a sender
that asks not to wait.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Self

from overlay.errors import ConfigError, HostError
from overlay.host import advice
from overlay.host.sockets.bpf import EVERYTHING, LOAD_BYTE, NOTHING, SO_ATTACH_FILTER, attach
from overlay.host.sockets.packet_capture import SO_TIMESTAMPNS
from overlay.host.sockets.pcap_filter import Instruction, as_program, behind_header
from overlay.linux import JUMP_IF_EQUAL, LOAD_WORD, RETURN, SO_SNDBUFFORCE
from overlay.wire.dropped import COUNT_AT, HEADER, LENGTH_AT, LONGEST, Dropped, DroppedKind

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours
BUFFER = 8 * 1024 * 1024  # bytes that wait to be read
_TIME = struct.Struct("=qq")
_ANCILLARY = 128


class DropSocket:
    """The receiving end."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """Return the receiving end, and the end for a forwarder.  Raises HostError."""
        try:
            hears, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise HostError(f"dropped packets cannot be received: {advice.with_reason(error)}") from error
        hears.setblocking(False)
        hears.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            tells.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN
            tells.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return cls(hears), tells

    def let_through(self, instructions: Sequence[Instruction]) -> None:
        """From now on, receive only packets that match *instructions*, and the end; pass over what came before.

        Raises ConfigError, HostError.
        """
        moved = behind_header(instructions, HEADER.size, LENGTH_AT)
        the_end = [(LOAD_WORD, 0, 0, COUNT_AT), (JUMP_IF_EQUAL, 0, 1, 0), (RETURN, 0, 0, EVERYTHING)]
        only_packets = [
            (LOAD_BYTE, 0, 0, 0),
            (JUMP_IF_EQUAL, 1, 0, int(DroppedKind.PACKET)),
            (RETURN, 0, 0, 0),
        ]
        attach(self._socket, SO_ATTACH_FILTER, NOTHING)
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        try:
            attach(self._socket, SO_ATTACH_FILTER, as_program([*the_end, *only_packets, *moved]))
        except OSError as error:
            raise ConfigError(
                "this filter cannot be used for dropped packets: write a simpler one"
            ) from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def ask_for_the_end(self) -> None:
        """Make the agent end the reports: after the last message, which has the number of missed packets, read() raises
        EOFError.
        """
        with contextlib.suppress(OSError):  # it is over already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Stop receiving; the forwarder notices."""
        self._socket.close()

    def read(self) -> tuple[int, Dropped] | None:
        """Return the next dropped packet and its time, in nanoseconds of CLOCK_REALTIME; None if there is none now.

        Raises EOFError when no more will come, and PacketError for a malformed message.
        """
        try:
            data, ancillary, *_ = self._socket.recvmsg(HEADER.size + LONGEST + 1, _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        wall_ns = 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(value) >= _TIME.size:
                seconds, rest = _TIME.unpack_from(value)
                wall_ns = seconds * 1_000_000_000 + rest
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                _close_each(value)
        return wall_ns, Dropped.parse(data)


def _close_each(rights: bytes) -> None:
    """Close the descriptors that came with a message: a forwarder sends none, unless somebody has taken it over."""
    received = array.array("i")
    received.frombytes(rights[: len(rights) - len(rights) % received.itemsize])
    for each in received:
        os.close(each)
