"""Raw sockets for ICMP errors: those that receive the ones for this host, and one that sends the node's own."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from overlay.errors import HostError
from overlay.host import advice
from overlay.host.sockets.socket_options import IP_FREEBIND, set_mark
from overlay.wire.returned import LOST_V4, LOST_V6

if TYPE_CHECKING:
    from ipaddress import IPv4Address

# Specification: linux/icmp.h, linux/icmpv6.h: each bit blocks one type
SOL_RAW = 255
ICMP_FILTER = 1
ICMPV6_FILTER = 1

# Ours
BUFFER = 32 * 1024  # bytes; most errors of a flood are lost, which does no harm


def open_error_sockets() -> list[socket.socket]:
    """Return a socket for ICMP and one for ICMPv6, or those of the two that this process may have."""
    opened: list[socket.socket] = []
    for family, protocol in (
        (socket.AF_INET, socket.IPPROTO_ICMP),
        (socket.AF_INET6, socket.IPPROTO_ICMPV6),
    ):
        with contextlib.suppress(OSError):
            opened.append(_open(family, protocol))
    return opened


def _open(family: socket.AddressFamily, protocol: int) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        if family == socket.AF_INET:
            raw.setsockopt(SOL_RAW, ICMP_FILTER, _all_but(LOST_V4, 1))
        else:
            raw.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, _all_but(LOST_V6, 8))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    except OSError:
        raw.close()
        raise
    return raw


def _all_but(kinds: tuple[int, ...], words: int) -> bytes:
    bits = [0xFFFFFFFF] * words
    for kind in kinds:
        bits[kind // 32] &= ~(1 << kind % 32)
    return struct.pack(f"@{words}I", *bits)


def open_icmp(address: IPv4Address, fwmark: int | None = None) -> socket.socket | None:
    """Return a raw socket that sends ICMP from *address* and receives nothing; None if this process may not have one.

    The address need not exist yet.  ICMPv6 needs no such socket: the kernel takes it from the tun.
    """
    try:
        icmp = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
        )
    except PermissionError:
        return None
    except OSError as error:
        raise HostError(
            f"this host cannot open a raw IPv4 socket for ICMP errors: {advice.with_reason(error)}"
        ) from error
    try:
        if fwmark is not None:
            set_mark(icmp, fwmark)
        icmp.setsockopt(
            SOL_RAW, ICMP_FILTER, struct.pack("I", 0xFFFFFFFF)
        )  # one bit for each type: block all
        icmp.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        icmp.bind((str(address), 0))
    except OSError as error:
        icmp.close()
        raise HostError(f"ICMP errors cannot be sent from {address}: {error.strerror}") from error
    except HostError:
        icmp.close()
        raise
    return icmp
