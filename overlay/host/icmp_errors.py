"""Raw sockets that get the ICMP errors which come to this host, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import struct

from overlay.host.sockets import ICMP_FILTER, SOL_RAW
from overlay.wire.returned import LOST_V4, LOST_V6

# Specification: linux/icmpv6.h: a bit for each type that is not taken
ICMPV6_FILTER = 1

# Ours
BUFFER = 32 * 1024  # bytes; of a flood most are lost, which harms nobody


def open_error_sockets() -> list[socket.socket]:
    """Return a socket for ICMP and one for ICMPv6, as far as this process may have them."""
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
