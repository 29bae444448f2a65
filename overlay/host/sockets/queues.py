"""The queues of a socket in the kernel: what waits to be sent, which sends have left, and what was dropped on arrival.

When a send has left for the device's driver, the kernel reports it by a transmit timestamp, which arrives in the
socket's error queue (Documentation/networking/timestamping.rst): this is the only way to know *whose* datagrams wait in
a send buffer that all peers share.  None of this needs a privilege.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from typing import Protocol, overload

from overlay.linux import EXTENDED_ERROR, IP_RECVERR, IPV6_RECVERR

# Specification: asm-generic/socket.h, asm-generic/sockios.h, linux/net_tstamp.h, linux/errqueue.h, linux/sock_diag.h
SO_TIMESTAMPING = 37
SO_MEMINFO = 55  # since Linux 4.12
SIOCOUTQ = 0x5411
TX_SOFTWARE, SOFTWARE, OPT_ID, OPT_TSONLY, OPT_RX_FILTER = 1 << 1, 1 << 4, 1 << 7, 1 << 11, 1 << 17
ORIGIN_TIMESTAMPING = 4
_ERRORS = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
_MEMINFO_DROPS, _MEMINFO_BYTES = 8, 36
# Only reports, with numbers and without the packets, and none for what is received; the last since Linux 6.12.
_REPORTS = (SOFTWARE | OPT_ID | OPT_TSONLY | OPT_RX_FILTER, SOFTWARE | OPT_ID | OPT_TSONLY)

TELL = (socket.SOL_SOCKET, SO_TIMESTAMPING, struct.pack("=I", TX_SOFTWARE))
"""The control message of a send whose departure must be reported."""

# Ours
REPORTS_AT_ONCE = 512  # read at once


class KernelSocket(Protocol):
    """What this module asks of a socket; socket.socket has it."""

    def fileno(self) -> int: ...
    @overload
    def getsockopt(self, level: int, option: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def recvmsg(
        self, size: int, ancillary_size: int, flags: int, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]: ...


class SocketQueues:
    """The queues of one socket."""

    def __init__(self, raw: KernelSocket) -> None:
        """Look at *raw*.  If its send buffer may not be queried, it is treated as having size 0."""
        self._socket = raw
        try:
            self.waiting()
            self.size = raw.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        except OSError:
            self.size = 0

    def waiting(self) -> int:
        """Return how many bytes of the send buffer are in use, as the kernel counts them: including its overhead."""
        (waiting,) = struct.unpack("=i", fcntl.ioctl(self._socket.fileno(), SIOCOUTQ, bytes(4)))
        return int(waiting)

    def number_sends(self) -> bool:
        """Number, from 0 on, the sends that carry TELL; return False if this kernel cannot."""
        for flags in _REPORTS:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
            except OSError:
                continue
            return True
        return False

    def stop_numbers(self) -> None:
        """Stop numbering; sends that are on their way are still reported."""
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 0)

    def departed(self) -> list[int]:
        """Return the numbers of the sends that have left since the last call, in order."""
        numbers: list[int] = []
        for _ in range(REPORTS_AT_ONCE):
            try:
                _, control, _, _ = self._socket.recvmsg(1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:
                break
            for level, kind, data in control:
                if (level, kind) in _ERRORS and len(data) >= EXTENDED_ERROR.size:
                    _, origin, _, _, _, number = EXTENDED_ERROR.unpack_from(data)
                    if origin == ORIGIN_TIMESTAMPING:
                        numbers.append(number)
        return numbers

    def arrived(self) -> int:
        """Return how many bytes wait to be received, as the kernel counts them: with its overhead.

        0 if the kernel does not report it.
        """
        try:
            told = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO_BYTES)
        except OSError:
            return 0
        return int.from_bytes(told[:4], sys.byteorder)  # SK_MEMINFO_RMEM_ALLOC

    def dropped(self) -> int:
        """Return how many datagrams the kernel has dropped before they could be read, modulo 2**32.

        A merged receive counts once.  0 if the kernel does not report it.
        """
        try:
            told = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO_BYTES)
        except OSError:
            return 0
        if len(told) < _MEMINFO_BYTES:
            return 0
        return int.from_bytes(told[4 * _MEMINFO_DROPS :][:4], sys.byteorder)
