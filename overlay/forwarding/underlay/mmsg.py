"""Many packets in one call of a raw socket, which knows neither UDP_SEGMENT nor UDP_GRO: sendmmsg and recvmmsg.

Python has neither call, so both go through ctypes.  Their arguments are arrays of the C library's structures that
are made once; numpy sees them as columns, and a call fills in what changes: where the packets are, and their sizes.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from overlay.forwarding.underlay.outer_header import TOS, TTL_SHIFT
from overlay.host.sockets.queues import TELL
from overlay.wire.addresses import pack_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.forwarding.offload.flow import Bytes2D
    from overlay.wire.addresses import Sockaddr

# Specification (linux/in.h, in6.h, socket.h)
SOCKADDR_IN = struct.Struct("=H2x4s8x")
SOCKADDR_IN6 = struct.Struct("=H2x4x16sI")
CONTROL_MESSAGE = struct.Struct("@Nii i4x")  # size of all but the padding, level, type, one number
CONTROL_LENGTH = CONTROL_MESSAGE.size - 4
CONTROL_VALUE = struct.calcsize("@Nii")  # where the number is
MSG_DONTWAIT = 0x40
_TRAFFIC_CLASS: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}
_HOP_LIMIT: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
}

# Ours
MESSAGES = 64  # in one call, either way: what a super-packet needs
LARGEST_ROW = 9216  # bytes of a packet on the common underlays; larger ones are put together from two places
FIRST_ROW = 1500
REST_BYTES = 65536  # of a packet beyond its row

Numbers = npt.NDArray[Any]


class _Header(ctypes.Structure):
    """struct msghdr; pointers are numbers."""

    _fields_ = (
        ("name", ctypes.c_size_t),
        ("name_size", ctypes.c_uint),
        ("buffers", ctypes.c_size_t),
        ("buffer_count", ctypes.c_size_t),
        ("control", ctypes.c_size_t),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


class _Buffer(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_size_t), ("size", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg, _recvmmsg = _libc.sendmmsg, _libc.recvmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_TELL = CONTROL_MESSAGE.pack(CONTROL_LENGTH, *TELL[:2], int.from_bytes(TELL[2], sys.byteorder))
_STEPS = np.arange(MESSAGES, dtype=np.uintp)


def _columns(structures: Any, kind: type[ctypes.Structure]) -> Numbers:
    """Return an array of *structures*, all of *kind*, as numpy sees it."""
    return np.frombuffer(structures, np.dtype(kind))


def _address(view: memoryview | bytearray) -> int:
    """Return where the bytes of *view*, which can be written, are."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def pack_sockaddr(address: Sockaddr) -> bytes:
    """Return *address* as the kernel has it, without a port."""
    if len(address) == 2:
        return SOCKADDR_IN.pack(socket.AF_INET, pack_host(address))
    return SOCKADDR_IN6.pack(socket.AF_INET6, pack_host(address), address[3])


def parse_sockaddr(packed: bytes) -> Sockaddr:
    """Return the address that *packed* begins with, its port 0."""
    family, host = SOCKADDR_IN.unpack_from(packed)
    if family == socket.AF_INET:
        return str(IPv4Address(host)), 0
    _, host, scope = SOCKADDR_IN6.unpack_from(packed)
    return str(IPv6Address(host)), 0, 0, scope


class Receipt:
    """What one call received: packets as rows of one array, what is longer than a row goes on in ``rest``.

    Row *i* begins at i * *stride*.  The packets determine the best size of rows: see fit().
    """

    def __init__(self) -> None:
        self._bytes = bytearray(MESSAGES * LARGEST_ROW + LARGEST_ROW)
        self._rest = bytearray(MESSAGES * REST_BYTES)
        self.view, self.rest = memoryview(self._bytes), memoryview(self._rest)
        self.array: Bytes2D = np.frombuffer(self._bytes, np.uint8)
        self._messages = (_Message * MESSAGES)()
        self._buffers = (_Buffer * (2 * MESSAGES))()
        messages: Numbers = _columns(self._messages, _Message)
        self._columns: Numbers = _columns(self._buffers, _Buffer).reshape(MESSAGES, 2)
        headers: Numbers = messages["header"]
        self.sizes: Numbers = messages["size"]
        self.names: Bytes2D = np.zeros((MESSAGES, SOCKADDR_IN6.size), np.uint8)
        self._controls: Bytes2D = np.zeros((MESSAGES, CONTROL_MESSAGE.size), np.uint8)
        self.traffic_classes: Numbers = self._controls[:, CONTROL_VALUE : CONTROL_VALUE + 4].view(np.int32)[
            :, 0
        ]
        self._name_sizes, self._control_sizes = headers["name_size"], headers["control_size"]
        headers["name"] = self.names.ctypes.data + _STEPS * np.uintp(SOCKADDR_IN6.size)
        headers["control"] = self._controls.ctypes.data + _STEPS * np.uintp(CONTROL_MESSAGE.size)
        headers["buffers"] = self._columns.ctypes.data + _STEPS * np.uintp(2 * ctypes.sizeof(_Buffer))
        headers["buffer_count"] = 2
        self._columns["base"][:, 1] = _address(self._rest) + _STEPS * np.uintp(REST_BYTES)
        self._columns["size"][:, 1] = REST_BYTES
        self.stride = 0
        self.fit(FIRST_ROW)

    def fit(self, size: int) -> None:
        """Let rows have room for *size* bytes from the next receive on, as far as there is room."""
        stride = min(max(size + (size & 1), 2), LARGEST_ROW)  # an IPv6 packet may be nothing but its header
        if stride != self.stride:
            self.stride = stride
            self._columns["base"][:, 0] = _address(self._bytes) + _STEPS * np.uintp(stride)
            self._columns["size"][:, 0] = stride

    def packet(self, row: int) -> memoryview:
        """Return the whole packet of *row*, which is longer than that: a copy."""
        size, at = int(self.sizes[row]), row * self.stride
        more = row * REST_BYTES
        whole = bytearray(self.view[at : at + self.stride])
        whole += self.rest[more : more + size - self.stride]
        return memoryview(whole)

    def call(self, descriptor: int) -> int:
        """Receive from *descriptor*, and return how many packets came."""
        self._name_sizes[:] = SOCKADDR_IN6.size
        self._control_sizes[:] = CONTROL_MESSAGE.size
        return int(_recvmmsg(descriptor, ctypes.addressof(self._messages), MESSAGES, MSG_DONTWAIT, None))


class Carrier(Protocol):
    """The interface of a raw socket for the forwarder."""

    def send(
        self,
        buffers: Sequence[memoryview],
        size: int,
        marks: int,
        address: Sockaddr,
        *,
        tells: bool = False,
    ) -> int:
        """Send packets, and return how many of them left.  Raises OSError if the first does not.

        With *tells* the kernel is to tell when the last of them has left for the device.
        """
        ...

    def receive(self, into: Receipt) -> int:
        """Receive into *into*, and return how many packets came.  Raises OSError; BlockingIOError for none."""
        ...


class RawCarrier:
    """A raw socket of the kernel's.

    Over IPv4 a packet received begins with the outer header; over IPv6 it does not, and traffic classes are beside.
    """

    def __init__(self, descriptor: int, family: int) -> None:
        self._descriptor, self._family = descriptor, family
        size = SOCKADDR_IN.size if family == socket.AF_INET else SOCKADDR_IN6.size
        self._name, self._control = bytearray(size), bytearray(3 * CONTROL_MESSAGE.size)  # TELL is the third
        self._address: Sockaddr | None = None
        self._marks = -1
        self._messages = (_Message * MESSAGES)()
        self._buffers = (_Buffer * MESSAGES)()
        headers: Numbers = _columns(self._messages, _Message)["header"]
        columns: Numbers = _columns(self._buffers, _Buffer)
        headers["name"], headers["name_size"] = _address(self._name), size
        headers["buffers"] = columns.ctypes.data + _STEPS * np.uintp(ctypes.sizeof(_Buffer))
        headers["buffer_count"] = 1
        headers["control"] = _address(self._control)
        self._control_sizes, self._bases, self._sizes = (
            headers["control_size"],
            columns["base"],
            columns["size"],
        )

    def send(
        self,
        buffers: Sequence[memoryview],
        size: int,
        marks: int,
        address: Sockaddr,
        *,
        tells: bool = False,
    ) -> int:
        """Send *buffers*, together packets of *size* bytes except for the last; return how many left, perhaps not all.

        With *tells* the kernel is to tell when the last of them has left for the device.  Raises OSError if the first
        does not leave.
        """
        if address != self._address:
            self._name[:], self._address = pack_sockaddr(address), address
        if marks != self._marks:
            control = self._control_messages(marks)
            self._control[: len(control) + len(_TELL)], self._marks = control + _TELL, marks
            self._control_sizes[:] = len(control)
        if any(view.readonly for view in buffers):  # of which no address can be had
            buffers = [memoryview(bytearray(view)) for view in buffers]
        first = buffers[0]
        if len(buffers) == 1 and len(first) > size:
            count = min(-(-len(first) // size), MESSAGES)
            self._bases[:count] = _address(first) + _STEPS[:count] * np.uintp(size)
            self._sizes[:count] = size
            self._sizes[count - 1] = min(size, len(first) - (count - 1) * size)
        else:
            count = min(len(buffers), MESSAGES)
            self._bases[:count] = list(map(_address, buffers[:count]))
            self._sizes[:count] = list(map(len, buffers[:count]))
        if tells:
            self._control_sizes[count - 1] += len(_TELL)
        sent = int(_sendmmsg(self._descriptor, ctypes.addressof(self._messages), count, 0))
        if tells:
            self._control_sizes[count - 1] -= len(_TELL)
        if sent < 0:
            raise _error()
        return sent

    def receive(self, into: Receipt) -> int:
        """Receive into *into*, and return how many packets came.  Raises OSError; BlockingIOError for none."""
        count = into.call(self._descriptor)
        if count < 0:
            raise _error()
        return count

    def _control_messages(self, marks: int) -> bytes:
        """Return the control messages for *marks*: TOS and TTL, each unless it is zero."""
        wanted = (
            (_TRAFFIC_CLASS[self._family], marks & TOS),
            (_HOP_LIMIT[self._family], marks >> TTL_SHIFT & 0xFF),
        )
        return b"".join(
            CONTROL_MESSAGE.pack(CONTROL_LENGTH, level, kind, value)
            for (level, kind), value in wanted
            if value
        )


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
