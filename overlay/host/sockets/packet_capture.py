"""Packets that pass one network interface, or all of them, as the kernel sees them: a packet socket (packet(7)).

The kernel copies the packets that pass a filter into the socket's buffer, and counts those that do not fit: it does not
wait for the reader.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.process.privileges import Capability
from overlay.host.sockets.bpf import NOTHING, SO_ATTACH_FILTER, attach
from overlay.host.sockets.neighbour_filters import PACKET_OUTGOING
from overlay.linux import SO_RCVBUFFORCE

if TYPE_CHECKING:
    import array
    from collections.abc import Sequence

# Specification: linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
SOL_PACKET = 263
PACKET_STATISTICS, PACKET_AUXDATA, PACKET_VNET_HDR = 6, 8, 15
ETH_P_ALL = 0x0003
SO_TIMESTAMPNS = 35  # also the type of the message that has the time
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: packets, and how many of them found no room
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, length, snaplen, ...
_TIME = struct.Struct("=qq")  # struct timespec of 64-bit Linux
_OFFLOAD = struct.Struct("=BBHHHH")  # struct virtio_net_hdr

# Ours
RECEIVE_BUFFER = 64 * 1024 * 1024  # bytes: a thousand super-packets; unused space takes no memory
ROOM = _OFFLOAD.size + 262_144
_ANCILLARY = 256


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet of *length* bytes, the first of which are *data*: valid until the next one is read.

    Times are nanoseconds of CLOCK_REALTIME.  If the checksum is still partial, *csum_start* and *csum_offset* say where
    it is; otherwise the first is -1.  *segment* is the segment size of a super-packet, 0 for a packet.
    """

    wall_ns: int
    data: memoryview
    length: int
    is_sent: bool
    csum_start: int
    csum_offset: int
    segment: int


class PacketCapture:
    """What passes *interface*, or all interfaces if that is None, from the network header on."""

    def __init__(self, interface: str | None, filter_program: array.array[int]) -> None:
        """Begin.  Raises HostError, for example without CAP_NET_RAW."""
        kind = socket.SOCK_RAW if interface is not None else socket.SOCK_DGRAM
        self._has_offload = interface is not None
        self._buffer = bytearray(ROOM)
        self._view = memoryview(self._buffer)
        self.received = self.missed = self._read = 0
        try:
            # No protocol yet if it is bound to one: nothing may arrive before the filter is set
            protocol = 0 if interface is not None else socket.htons(ETH_P_ALL)
            self._socket = socket.socket(
                socket.AF_PACKET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
            )
        except PermissionError as error:
            raise HostError(f"packets cannot be captured: {advice.gain(Capability.NET_RAW)}") from error
        except OSError as error:
            raise HostError(f"packets cannot be captured: {advice.with_reason(error)}") from error
        try:
            self._set_up(interface, filter_program)
        except OSError as error:
            self._socket.close()
            where = "all interfaces" if interface is None else interface
            raise HostError(f"packets of {where} cannot be captured: {advice.with_reason(error)}") from error

    def _set_up(self, interface: str | None, filter_program: array.array[int]) -> None:
        opened = self._socket
        try:
            opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        if self._has_offload:
            opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        if interface is not None:
            attach(opened, SO_ATTACH_FILTER, filter_program)
            opened.bind((interface, ETH_P_ALL))
            return
        attach(opened, SO_ATTACH_FILTER, NOTHING)
        while self.read() is not None:
            pass
        self.count()
        self.received = self.missed = self._read = 0
        attach(opened, SO_ATTACH_FILTER, filter_program)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop the capture."""
        self._socket.close()

    def read(self) -> Seen | None:
        """Return the next packet; None if there is none now.  Raises OSError, for example if the interface is gone."""
        try:
            size, ancillary, _, address = self._socket.recvmsg_into([self._buffer], _ANCILLARY)
        except BlockingIOError:
            return None
        self._read += 1
        wall_ns, at, csum_start, csum_offset, segment = 0, 0, -1, 0, 0
        if self._has_offload and size >= _OFFLOAD.size:
            flags, kind, _, segment, start, csum_offset = _OFFLOAD.unpack_from(self._buffer)
            at, csum_start, segment = _OFFLOAD.size, start if flags & 1 else -1, segment if kind else 0
        data = self._view[at:size]
        length = len(data)
        for level, what, value in ancillary:
            if level == SOL_PACKET and what == PACKET_AUXDATA and len(value) >= _AUXDATA.size:
                length = max(length, _AUXDATA.unpack_from(value)[1])
            elif level == socket.SOL_SOCKET and what == SO_TIMESTAMPNS and len(value) >= _TIME.size:
                seconds, rest = _TIME.unpack_from(value)
                wall_ns = seconds * 1_000_000_000 + rest
        is_sent = address[2] == PACKET_OUTGOING
        return Seen(wall_ns, data, length, is_sent, csum_start, csum_offset, segment)

    @property
    def unread(self) -> int:
        """How many of the packets that had arrived at the last count() are still unread."""
        return max(0, self.received - self.missed - self._read)

    def count(self) -> None:
        """Add what the kernel has counted since to *received*, which includes missed packets, and *missed*.

        The kernel counts to 2**32 and starts again.
        """
        seen, missed = _STATISTICS.unpack(
            self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
        )
        self.received += seen
        self.missed += missed


def ifindex_of(interface: str) -> int:
    """Return the index of *interface*.  Raises HostError if there is no such interface here."""
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise HostError(
            f"there is no interface {interface} here: run this in the network namespace of its agent"
        ) from error


def not_of(
    ifindex: int, instructions: Sequence[tuple[int, int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Return *instructions* for all interfaces except the one with index *ifindex*."""
    # SKF_AD_OFF + SKF_AD_IFINDEX: not an offset in the packet
    return [(0x20, 0, 0, 0xFFFFF008), (0x15, 0, 1, ifindex), (0x06, 0, 0, 0), *instructions]
