"""What is said to the kernel about links, addresses, routes and rules, and how: rtnetlink messages over one socket.

Messages are bytes here.  `overlay.host.netlink` writes most of them with pyroute2; what is read or written often, or
in great numbers, is read and written by hand with what stands here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeAlias

from overlay.errors import HostError
from overlay.host import advice, sysctl
from overlay.host.privileges import Capability

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Specification: linux/netlink.h, linux/rtnetlink.h
# All numbers are in the byte order of the host.
NETLINK_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10  # since Linux 4.3: errors come without the message they are about
NETLINK_GET_STRICT_CHK = 12  # since Linux 4.20: the kernel filters dumps
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
NLM_F_DUMP_INTR = 0x010  # the tables changed meanwhile: the dump may have holes
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU = 2
RTA_CACHEINFO = 12
RTA_MARK = 16
RTA_VIA = 18  # a gateway of the other family
CACHEINFO_EXPIRES = slice(8, 12)  # struct rta_cacheinfo: 4 bytes of references, 4 of last use, then this
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_UNREACHABLE = 7
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_NOWHERE = 255  # in a deletion: any scope
RT_TABLE_UNSPEC = 0
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255

# struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags
ROUTE = struct.Struct("=BBBBBBBBI")

# Ours
BATCH = 512  # messages in one send
RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes; holds an error for every message of a batch
SO_RCVBUFFORCE = 33
PATIENCE = 10.0  # seconds; the kernel answers at once or is broken
RECEIVE_SIZE = 64 * 1024  # bytes; the kernel fills at most 32 KiB of a dump
ATTEMPTS = 5  # at a dump that was interrupted

# Where a field stands, from the start of a message
FLAGS, FLAGS_OFFSET = struct.Struct("=H"), 6
SEQUENCE, SEQUENCE_OFFSET = struct.Struct("=I"), 8
ERROR_CODE = struct.Struct("=i")  # at the start of the payload
ROUTE_LENGTH_OFFSET = NETLINK_HEADER.size + 1  # of the destination prefix, in bits
ROUTE_TABLE_OFFSET = NETLINK_HEADER.size + 4
ROUTE_PROTOCOL_OFFSET = NETLINK_HEADER.size + 5
ROUTE_TYPE_OFFSET = NETLINK_HEADER.size + 7
ROUTE_ATTRIBUTES_OFFSET = NETLINK_HEADER.size + 12
ATTRIBUTE = struct.Struct("=HH")  # length, type

Version: TypeAlias = Literal[4, 6]


class Kernel:
    """A socket to the kernel's routing tables.  Errors come out as OSError."""

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.settimeout(PATIENCE)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        for level, option, value in (
            (SOL_NETLINK, NETLINK_CAP_ACK, 1),
            (SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1),
            (socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER),
        ):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(level, option, value)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def do(self, message: bytes) -> None:
        """Make one change."""
        refused = self.do_all([bytearray(message)])
        if refused:
            raise OSError(refused[0], os.strerror(refused[0]))

    def do_all(self, messages: Iterable[bytearray]) -> dict[int, int]:
        """Make many changes, many in one send; return the errno of each that was refused, by its position."""
        refused: dict[int, int] = {}
        position = 0
        iterator = iter(messages)
        while batch := list(islice(iterator, BATCH)):
            first = self._sequence + 1
            for message in batch:
                self._sequence += 1
                SEQUENCE.pack_into(message, SEQUENCE_OFFSET, self._sequence)
            FLAGS.pack_into(
                batch[-1], FLAGS_OFFSET, FLAGS.unpack_from(batch[-1], FLAGS_OFFSET)[0] | NLM_F_ACK
            )
            self._socket.sendto(b"".join(batch), (0, 0))
            for _, sequence, code in self._answers(self._sequence):
                if code:
                    refused[position + sequence - first] = code
            position += len(batch)
        return refused

    def ask(self, message: bytes | bytearray) -> list[bytes]:
        """Return the kernel's answers to a question, as messages."""
        question = bytearray(message)
        for _ in range(ATTEMPTS):
            self._sequence += 1
            SEQUENCE.pack_into(question, SEQUENCE_OFFSET, self._sequence)
            self._socket.sendto(question, (0, 0))
            answers = list(self._answers(self._sequence))
            for _, _, code in answers:
                if code:
                    raise OSError(code, os.strerror(code))
            found = [answer for answer, _, _ in answers if answer]
            if not any(FLAGS.unpack_from(answer, FLAGS_OFFSET)[0] & NLM_F_DUMP_INTR for answer in found):
                break
        return found

    def _answers(self, last: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (message, sequence number, 0) for data and (b"", sequence number, errno) for errors up to *last*'s end."""
        while True:
            for message in split_messages(self._socket.recv(RECEIVE_SIZE)):
                _, kind, _, sequence, _ = NETLINK_HEADER.unpack_from(message)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = -ERROR_CODE.unpack_from(message, NETLINK_HEADER.size)[0]
                    yield b"", sequence, code
                    if sequence == last:
                        return
                else:
                    yield message, sequence, 0


def versions() -> tuple[Version, ...]:
    return (4, 6) if sysctl.has_ipv6() else (4,)


def family_of(version: Version) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def split_messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages that came in one receive."""
    offset = 0
    while offset + NETLINK_HEADER.size <= len(data):
        length = NETLINK_HEADER.unpack_from(data, offset)[0]
        if length < NETLINK_HEADER.size:
            return
        yield data[offset : offset + length]
        offset += (length + 3) & ~3


def read_attributes(message: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind, message[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def read_number(attribute: bytes | None) -> int:
    """Return an unsigned attribute of any size, 0 if it is missing."""
    return int.from_bytes(attribute or b"", sys.byteorder)


def refusal(what: str, error: OSError) -> HostError:
    """Return "*what*: why", with the remedy where we know one."""
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return HostError(f"{what}: {advice.gain(Capability.NET_ADMIN)}")
        case errno.EOPNOTSUPP | errno.EAFNOSUPPORT:
            return HostError(f"{what}: this kernel was built without it")
        case _:
            return HostError(f"{what}: {error.strerror or error}")
