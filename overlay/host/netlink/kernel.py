"""A socket to the kernel's routing tables, and the errors for its refusals."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from itertools import islice
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice, sysctl
from overlay.host.netlink.rtnetlink import (
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NUMBER,
    RECEIVE_SIZE,
    ROUTE,
    RTA_OIF,
    RTM_GETROUTE,
    build_attribute,
    build_message,
    family_of,
    split_messages,
)
from overlay.host.process.privileges import Capability
from overlay.linux import ERROR_CODE, NETLINK_HEADER, NLM_F_ACK, NLMSG_ERROR, SO_RCVBUFFORCE, SOL_NETLINK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from overlay.host.netlink.rtnetlink import Version

# Specification: linux/netlink.h, linux/socket.h
NETLINK_CAP_ACK = 10  # since Linux 4.3: errors come without the message they are about
NETLINK_GET_STRICT_CHK = 12  # since Linux 4.20: the kernel filters dumps
# Offsets of fields, from the start of a message
FLAGS, FLAGS_OFFSET = struct.Struct("=H"), 6
SEQUENCE, SEQUENCE_OFFSET = struct.Struct("=I"), 8

# Ours
GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL}  # nothing left to remove
BATCH = 512  # messages in one send
RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes; holds an error for every message of a batch
PATIENCE = 10.0  # seconds; the kernel answers at once, or is broken
ATTEMPTS = 5  # to get a dump that is not interrupted


class Kernel:
    """A socket to the kernel's routing tables.  Raises OSError."""

    def __init__(self, passed: socket.socket | None = None) -> None:
        """Use *passed* if given, a socket that another process opened, perhaps in another network namespace; otherwise
        open a new one.
        """
        self._sequence = 0
        self._socket = passed or socket.socket(
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
        """Yield (message, sequence number, 0) for data and (b"", sequence number, errno) for errors, until *last* is
        answered.
        """
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


def dump_routes(
    kernel: Kernel,
    version: Version,
    *,
    table: int = 0,
    protocol: int = 0,
    kind: int = 0,
    interface: int | None = None,
    flags: int = 0,
) -> list[bytes]:
    """Return the messages of all routes of an IP version.  Raises OSError.

    Since Linux 4.20, if given, only those of *table*, *protocol*, type *kind* and *interface*; before, always all.
    """
    route = ROUTE.pack(family_of(version), 0, 0, 0, table, protocol, 0, kind, flags)
    leaving_by = b"" if interface is None else build_attribute(RTA_OIF, NUMBER.pack(interface))
    try:
        return kernel.ask(build_message(RTM_GETROUTE, NLM_F_DUMP, route, leaving_by))
    except OSError as error:
        if error.errno == errno.ENOENT:  # nothing was ever put into the table
            return []
        raise


def refusal(what: str, error: OSError) -> HostError:
    """Return an error with the text "*what*: why", with the remedy if one is known."""
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return HostError(f"{what}: {advice.gain(Capability.NET_ADMIN)}")
        case errno.EOPNOTSUPP | errno.EAFNOSUPPORT:
            return HostError(f"{what}: this kernel was built without it")
        case _:
            return HostError(f"{what}: {error.strerror or error}")
