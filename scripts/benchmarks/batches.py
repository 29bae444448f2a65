"""Many datagrams in one call: sendmmsg(2), for programs that only send."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH = 64  # in one call: enough to make the call's own cost small

_libc = ctypes.CDLL(None, use_errno=True)


class Buffer(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(Buffer)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_char_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """struct mmsghdr: a struct msghdr, and how many bytes of it were sent."""

    _fields_ = (("header", Header), ("sent", ctypes.c_uint32))


def sockaddr(address: str, port: int) -> bytes:
    """Return an IPv4 address in the kernel's form."""
    return struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + socket.inet_aton(address) + bytes(8)


class Batches:
    """Datagrams that are ready to be sent: destination (see sockaddr), payload, and control data of each."""

    def __init__(self, datagrams: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        self._messages = (Message * len(datagrams))()
        for message, (name, data, control) in zip(self._messages, datagrams, strict=True):
            header = message.header
            header.name, header.name_length = name, len(name)
            header.vector, header.vector_length = ctypes.pointer(Buffer(data, len(data))), 1
            if control:
                header.control, header.control_length = control, len(control)
        size = ctypes.sizeof(Message)
        self._calls = [
            (ctypes.byref(self._messages, first * size), min(BATCH, len(datagrams) - first))
            for first in range(0, len(datagrams), BATCH)
        ]

    def __len__(self) -> int:
        return len(self._calls)

    def send(self, descriptor: int, number: int) -> int:
        """Send batch *number* modulo the number of batches, and return how many datagrams were sent."""
        at, length = self._calls[number % len(self._calls)]
        return max(0, int(_libc.sendmmsg(descriptor, at, length, 0)))
