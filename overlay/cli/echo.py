"""Echo requests on a socket (RFC 792, RFC 4443)."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol, TypeAlias

from overlay.cli.exits import Failure
from overlay.errors import PacketError
from overlay.host import advice
from overlay.host.process.privileges import Capability
from overlay.linux import EXTENDED_ERROR, IP_RECVERR, IPV6_RECVERR
from overlay.wire.icmp import Echo
from overlay.wire.icmp_errors import IcmpError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peers.addresses import Address

    EchoOpener: TypeAlias = Callable[[Address, Address], "EchoSocket"]

# Specification linux/errqueue.h, struct sock_extended_err: errno, origin, type, code, information, data; then the
# sender of the error
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3
SOCKADDR_HOST = {4: slice(4, 8), 6: slice(8, 24)}  # where sockaddr_in and sockaddr_in6 have the address

# Ours
DATA_SIZE = 56  # bytes, the default of ping
ANCILLARY_SIZE = 512  # bytes; one error with its sender takes less than a hundred


@dataclass(frozen=True, slots=True)
class EchoError:
    """The ICMP error that *sender* returned for the request *sequence*."""

    sequence: int
    sender: Address
    error: IcmpError


class EchoSocket(Protocol):
    """Sends echo requests to one address and waits for the replies."""

    def send(self, sequence: int) -> None:
        """Send the request *sequence*.  Raises OSError if the kernel cannot."""

    def receive(self, timeout: float) -> int | EchoError | None:
        """Return the sequence of the next reply, or an error for any earlier request.

        None if neither came in *timeout* seconds.  Raises OSError if this host cannot reach the address.
        """

    def close(self) -> None:
        """Close the socket."""


class IcmpSocket:
    """An EchoSocket of the kernel."""

    def __init__(self, own: Address, peer: Address) -> None:
        """Open it from *own* to *peer*.  Raises Failure without permission, or if *own* is not on this host."""
        self._own, self._peer = own, peer
        self._is_v4 = own.version == 4
        # The kernel sets the identifier of a datagram socket itself, so the data identifies our replies.
        self._data = secrets.token_bytes(DATA_SIZE)
        self._identifier = secrets.randbelow(1 << 16)
        self._socket, self._is_raw = self._open()
        try:
            level, option = (
                (socket.IPPROTO_IP, IP_RECVERR) if self._is_v4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
            )
            self._socket.setsockopt(level, option, 1)  # report "unreachable" at once
            self._socket.bind((str(own), 0))
            self._socket.connect((str(peer), 0))
        except OSError as error:
            self._socket.close()
            raise Failure(f"cannot send an echo request from {own} to {peer}: {error.strerror}") from error

    def send(self, sequence: int) -> None:
        """Send a request."""
        message = Echo(False, self._identifier, sequence, self._data).build(self._own, self._peer)
        try:
            self._socket.send(message)
        except OSError:
            self._socket.send(message)  # the first call may have reported an error of an earlier request

    def receive(self, timeout: float) -> int | EchoError | None:
        """Wait for a reply or an error; anything else that arrives ends the wait early, with None."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return None
        with contextlib.suppress(BlockingIOError):
            quoted, ancillary, _, _ = self._socket.recvmsg(65535, ANCILLARY_SIZE, socket.MSG_ERRQUEUE)
            return self._read_error(quoted, ancillary)
        try:
            message = self._socket.recv(65535)
        except BlockingIOError:
            return None
        if self._is_raw and self._is_v4:
            message = message[(message[0] & 15) * 4 :]
        with contextlib.suppress(PacketError):
            echo = Echo.parse(message, self._own.version)
            if echo.is_reply and echo.data == self._data:
                return echo.sequence
        return None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read_error(self, quoted: bytes, ancillary: Iterable[tuple[int, int, bytes]]) -> EchoError | None:
        """Return the error about the request that begins with *quoted*; None if it is another program's.

        Raises OSError for an error of this host itself.
        """
        version = self._own.version
        for _, kind, data in ancillary:
            if kind not in {IP_RECVERR, IPV6_RECVERR} or len(data) < EXTENDED_ERROR.size:
                continue
            number, origin, icmp_type, code, value, _ = EXTENDED_ERROR.unpack_from(data)
            if origin not in {SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6}:
                raise OSError(number, os.strerror(number))
            with contextlib.suppress(PacketError, ValueError):  # an empty address: the sender is not known
                echo = Echo.parse(quoted, version)
                sender = ip_address(data[EXTENDED_ERROR.size :][SOCKADDR_HOST[version]])
                # A raw socket receives the errors for every program's requests to this address.
                is_ours = not self._is_raw or echo.identifier == self._identifier
                if is_ours and not echo.is_reply:
                    return EchoError(echo.sequence, sender, IcmpError(version, icmp_type, code, value))
        return None

    def _open(self) -> tuple[socket.socket, bool]:
        """Return a raw socket and True; without the permission, a datagram socket and False."""
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP) if self._is_v4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
            try:
                return (
                    socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol),
                    kind == socket.SOCK_RAW,
                )
            except PermissionError:
                continue
            except OSError as error:
                raise Failure(f"cannot open an ICMP socket: {error.strerror}") from error
        raise Failure(f"cannot send an echo request: {advice.gain(Capability.NET_RAW)}")
